// The page: takes a photo, gives it to the worker, shows before and after.

const TILE = 128; // sides in pixels of the photo; smaller tiles show progress sooner
const OVERLAP = 16;
const LARGEST = 4e6; // pixels; a larger photo would need gigabytes and minutes

const find = (id) => document.getElementById(id);
const [before, after] = [find("before"), find("after")];
const worker = new Worker("worker.js", { type: "module" });

function show(state, text, error = "") {
  document.body.dataset.state = state;
  find("status").textContent = text;
  find("error").textContent = error;
  find("progress").hidden = state !== "working";
}

function split() {
  const share = `${find("slider").value}%`;
  after.style.clipPath = `inset(0 0 0 ${share})`;
  find("line").style.left = share;
}

async function pixelsOf(file) {
  const photo = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(photo.width, photo.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(photo, 0, 0);
  return [photo, context.getImageData(0, 0, photo.width, photo.height)];
}

async function take(file) {
  if (!file || document.body.dataset.state === "working") {
    return;
  }
  try {
    const [photo, { data: pixels, width, height }] = await pixelsOf(file);
    if (width * height > LARGEST) {
      throw new Error(`${width} x ${height} pixels are too many: choose a photo of 4 million`);
    }
    [before.width, before.height] = [2 * width, 2 * height];
    const context = before.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(photo, 0, 0, before.width, before.height);
    show("working", `${width} x ${height} pixels`);
    find("progress").value = 0;
    const sizes = { width, height, tile: TILE, overlap: OVERLAP };
    worker.postMessage({ type: "restore", pixels, ...sizes }, [pixels.buffer]);
  } catch (error) {
    show("ready", "", `This file cannot be used: ${error.message}`);
  }
}

function finish({ pixels, width, height }) {
  [after.width, after.height] = [width, height];
  after.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  after.toBlob((blob) => {
    URL.revokeObjectURL(find("save").href);
    find("save").href = URL.createObjectURL(blob);
    show("done", `${width} x ${height} pixels`);
  });
  split();
}

worker.onmessage = ({ data }) => {
  if (data.type === "progress") {
    find("progress").value = data.value;
  } else if (data.type === "done") {
    finish(data);
  } else if (data.type === "ready") {
    show("ready", "Ready");
  } else {
    show("ready", "", `The network cannot run here: ${data.text}`);
  }
};
worker.onerror = (event) => show("ready", "", `The network cannot run here: ${event.message}`);
worker.postMessage({ type: "open" });

const drop = find("drop");
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  drop.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
  });
}
drop.addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
find("file").addEventListener("change", (event) => take(event.target.files[0]));
find("slider").addEventListener("input", split);
