// Runs ONNX files in onnxruntime-node or onnxruntime-web (wasm); see run_files.py for the contract.
//
//     node run_files.mjs RUNTIME CASES.json FOLDER
//
// FOLDER is where npm installed the runtime.

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const [name, cases, folder] = process.argv.slice(2);
const require = createRequire(path.join(path.resolve(folder), "index.js"));
const ort = require(name);
const web = name === "onnxruntime-web";
const ARRAYS = { float32: Float32Array, int32: Int32Array };
const provider = web ? "wasm" : "cpu";

ort.env.logLevel = "fatal";
if (web) {
  ort.env.wasm.numThreads = 1;
}

function read(file, type) {
  const bytes = fs.readFileSync(file);
  return new ARRAYS[type](bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

async function run(one) {
  const inputs = {};
  for (const [input, { file, shape, type }] of Object.entries(one.inputs)) {
    inputs[input] = new ort.Tensor(type, read(file, type), shape);
  }
  const session = await ort.InferenceSession.create(new Uint8Array(fs.readFileSync(one.model)), {
    executionProviders: [provider],
    intraOpNumThreads: 1,
    logSeverityLevel: 4,
  });
  const begun = performance.now();
  const { output } = await session.run(inputs);
  const seconds = (performance.now() - begun) / 1000;
  fs.writeFileSync(one.output, Buffer.from(output.data.buffer, output.data.byteOffset,
    output.data.byteLength));
  return { shape: output.dims, seconds };
}

const manifest = path.join(folder, "node_modules", name, "package.json");
console.log(JSON.stringify({ version: JSON.parse(fs.readFileSync(manifest)).version }));
for (const one of JSON.parse(fs.readFileSync(cases))) {
  let found;
  try {
    found = await run(one);
  } catch (error) {
    found = { error: String(error?.message ?? error).split(/\s+/).join(" ") };
  }
  console.log(JSON.stringify(found));
}
