// What is heavy with large pictures, away from the thread that answers the user.

import { readIds, withPalette } from "./png.js";

/** The picture upright, no larger than `most` pixels on its long side, and the size that it really has. */
async function picture({ blob, most }) {
  const whole = await createImageBitmap(blob, { imageOrientation: "from-image" });
  const { width, height } = whole;
  const scale = Math.min(1, most / Math.max(width, height));
  if (scale === 1) return { bitmap: whole, width, height };
  const [resizeWidth, resizeHeight] = shownSize(width, height, most);
  const bitmap = await createImageBitmap(whole, { resizeWidth, resizeHeight, resizeQuality: "high" });
  whole.close();
  return { bitmap, width, height };
}

function shownSize(width, height, most) {
  const scale = Math.min(1, most / Math.max(width, height));
  return [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
}

/** An upright copy of no more than `most` pixels on its long side, as a JPEG. */
async function smaller({ blob, most }) {
  const { bitmap } = await picture({ blob, most });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
}

/** The class map out of its base64: all of it, a sample for the screen, and the same as a palette PNG. */
async function classMap({ base64, classes, most }) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const { width, height, ids } = await readIds(bytes);
  const mask = withPalette(bytes, classes);
  const [shownWidth, shownHeight] = shownSize(width, height, most);
  if (shownWidth === width && shownHeight === height) return { width, height, ids, shown: { width, height, ids }, mask };
  const sample = new Uint8Array(shownWidth * shownHeight);
  const columns = Int32Array.from({ length: shownWidth }, (_, x) => Math.floor(((x + 0.5) * width) / shownWidth));
  for (let y = 0; y < shownHeight; y += 1) {
    const start = Math.floor(((y + 0.5) * height) / shownHeight) * width;
    for (let x = 0; x < shownWidth; x += 1) sample[y * shownWidth + x] = ids[start + columns[x]];
  }
  return { width, height, ids, shown: { width: shownWidth, height: shownHeight, ids: sample }, mask };
}

/** The picture at its own size under its classes' colours, as a JPEG. `colours` is one RGBA word per id. */
async function overlay({ blob, width, height, ids, colours, opacity }) {
  const whole = await createImageBitmap(blob, { imageOrientation: "from-image" });
  const canvas = new OffscreenCanvas(width, height);
  const brush = canvas.getContext("2d");
  brush.drawImage(whole, 0, 0, width, height);
  whole.close();
  brush.globalAlpha = opacity;
  // In strips, since the colours of 12 million pixels take 48 MB.
  const rows = Math.max(1, Math.floor(1_000_000 / width));
  for (let top = 0; top < height; top += rows) {
    const high = Math.min(rows, height - top);
    const strip = new OffscreenCanvas(width, high);
    const pixels = new ImageData(width, high);
    const words = new Uint32Array(pixels.data.buffer);
    for (let place = 0; place < words.length; place += 1) words[place] = colours[ids[top * width + place]];
    strip.getContext("2d").putImageData(pixels, 0, 0);
    brush.drawImage(strip, 0, top);
  }
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
}

const TASKS = { picture, smaller, classMap, overlay };

onmessage = async ({ data: { number, task, given } }) => {
  try {
    const result = await TASKS[task](given);
    postMessage({ number, result }, task === "picture" ? [result.bitmap] : []);
  } catch (error) {
    postMessage({ number, error: String(error?.message ?? error) });
  }
};
