// Runs the network, tile by tile, beside the page.

import * as ort from "./ort/ort.wasm.min.mjs";
import { ramp, spans } from "./tiles.js";

const CHANNELS = 3;

ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
// More threads need a page with the headers of cross-origin isolation.
ort.env.wasm.numThreads = self.crossOriginIsolated ? navigator.hardwareConcurrency : 1;

let session;

async function open() {
  session = await ort.InferenceSession.create(new URL("./model.onnx", import.meta.url).href, {
    executionProviders: ["wasm"],
  });
}

// One tile of RGBA bytes as floats in [0, 1], channel by channel.
function cut(pixels, width, [top, bottom], [left, right]) {
  const height = bottom - top;
  const across = right - left;
  const values = new Float32Array(CHANNELS * height * across);
  for (let c = 0, i = 0; c < CHANNELS; c++) {
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++, i++) {
        values[i] = pixels[4 * (y * width + x) + c] / 255;
      }
    }
  }
  return new ort.Tensor("float32", values, [1, CHANNELS, height, across]);
}

class Blended {
  constructor(height, width, scale) {
    this.height = height * scale;
    this.width = width * scale;
    this.scale = scale;
    this.total = new Float32Array(CHANNELS * this.height * this.width);
    this.weight = new Float32Array(this.height * this.width);
  }

  add(values, top, left, down, across) {
    const size = this.height * this.width;
    for (let y = 0, i = 0; y < down.length; y++) {
      for (let x = 0; x < across.length; x++, i++) {
        const share = down[y] * across[x];
        const place = (top * this.scale + y) * this.width + left * this.scale + x;
        this.weight[place] += share;
        for (let c = 0; c < CHANNELS; c++) {
          this.total[c * size + place] += share * values[c * down.length * across.length + i];
        }
      }
    }
  }

  bytes() {
    const size = this.height * this.width;
    const pixels = new Uint8ClampedArray(4 * size).fill(255);
    for (let i = 0; i < size; i++) {
      for (let c = 0; c < CHANNELS; c++) {
        pixels[4 * i + c] = 255 * (this.total[c * size + i] / this.weight[i]); // clamps and rounds
      }
    }
    return pixels;
  }
}

async function restore({ pixels, width, height, tile, overlap }) {
  const rows = spans(height, tile, overlap);
  const columns = spans(width, tile, overlap);
  let blended;
  let done = 0;
  for (const row of rows) {
    for (const column of columns) {
      const input = cut(pixels, width, row, column);
      const { output } = await session.run({ input });
      const scale = output.dims[3] / input.dims[3];
      blended ??= new Blended(height, width, scale);
      const down = ramp(row, height, overlap, scale);
      blended.add(output.data, row[0], column[0], down, ramp(column, width, overlap, scale));
      done++;
      postMessage({ type: "progress", value: done / (rows.length * columns.length) });
    }
  }
  const found = blended.bytes();
  const sizes = { width: blended.width, height: blended.height };
  postMessage({ type: "done", pixels: found, ...sizes }, [found.buffer]);
}

onmessage = async ({ data }) => {
  try {
    session ?? (await open());
    if (data.type === "restore") {
      await restore(data);
    } else {
      postMessage({ type: "ready" });
    }
  } catch (error) {
    postMessage({ type: "error", text: String(error?.message ?? error) });
  }
};
