// Tiles as zoo/inference/tiling.py cuts and blends them, so that the pixels are the same.

// Starts and ends of tiles along a side: equal, as few and as short as can be.
export function spans(size, tile, overlap) {
  if (size <= tile) {
    return [[0, size]];
  }
  const count = Math.ceil((size - overlap) / (tile - overlap));
  const length = Math.ceil((size + (count - 1) * overlap) / count);
  const found = [];
  for (let number = 0; number < count; number++) {
    const start = Math.floor((number * (size - length)) / (count - 1));
    found.push([start, start + length]);
  }
  return found;
}

// Weights of a tile along a side: they fall linearly in an overlap, never to zero.
export function ramp([start, end], size, overlap, scale) {
  const length = (end - start) * scale;
  const reach = overlap * scale;
  const weights = new Float32Array(length).fill(1);
  for (let i = 0; reach > 0 && i < length; i++) {
    if (start > 0) {
      weights[i] = Math.min(weights[i], (i + 0.5) / reach);
    }
    if (end < size) {
      weights[i] = Math.min(weights[i], (length - i - 0.5) / reach);
    }
  }
  return weights;
}
