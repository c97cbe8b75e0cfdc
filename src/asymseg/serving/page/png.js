// Class ids out of a grey PNG, and the same PNG with a palette.
//
// Not by a canvas: browsers that guard against fingerprinting add noise to what a canvas gives back, and one step of
// grey is another class.

import { rgbOf } from "./colours.js";

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];

/** The chunks of a PNG: `{type, data}`, in order. */
function chunksOf(bytes) {
  if (SIGNATURE.some((value, place) => bytes[place] !== value)) throw new Error("the class map is not a PNG");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const chunks = [];
  for (let at = 8; at < bytes.length; ) {
    const length = view.getUint32(at);
    const type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    chunks.push({ type, data: bytes.subarray(at + 8, at + 8 + length) });
    at += length + 12;
  }
  return chunks;
}

/** Width, height and one byte per pixel, row by row. */
export async function readIds(bytes) {
  const chunks = chunksOf(bytes);
  const head = chunks[0].data;
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const [width, height, depth, colour, interlaced] = [view.getUint32(0), view.getUint32(4), head[8], head[9], head[12]];
  if (depth !== 8 || (colour !== 0 && colour !== 3) || interlaced) throw new Error("the class map is not plain 8-bit grey");
  const packed = new Blob(chunks.filter(({ type }) => type === "IDAT").map(({ data }) => data));
  const plain = await new Response(packed.stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
  return { width, height, ids: unfilter(new Uint8Array(plain), width, height) };
}

/** Undoes the five filters of the PNG specification (section 9) for one byte per pixel. */
function unfilter(raw, width, height) {
  const out = new Uint8Array(width * height);
  for (let row = 0; row < height; row += 1) {
    const from = row * (width + 1) + 1;
    const to = row * width;
    const filter = raw[from - 1];
    for (let column = 0; column < width; column += 1) {
      const left = column ? out[to + column - 1] : 0;
      const above = row ? out[to + column - width] : 0;
      const corner = row && column ? out[to + column - width - 1] : 0;
      let guess = 0;
      if (filter === 1) guess = left;
      else if (filter === 2) guess = above;
      else if (filter === 3) guess = (left + above) >> 1;
      else if (filter === 4) guess = paeth(left, above, corner);
      out[to + column] = raw[from + column] + guess;
    }
  }
  return out;
}

function paeth(left, above, corner) {
  const sum = left + above - corner;
  const [a, b, c] = [Math.abs(sum - left), Math.abs(sum - above), Math.abs(sum - corner)];
  if (a <= b && a <= c) return left;
  return b <= c ? above : corner;
}

/** The same pixels as a palette PNG in the classes' colours: only the head changes and a palette comes in. */
export function withPalette(bytes, classes) {
  const palette = new Uint8Array(3 * 256);
  for (const { id, colour } of classes) palette.set(rgbOf(colour), 3 * id);
  const parts = [new Uint8Array(SIGNATURE)];
  for (const { type, data } of chunksOf(bytes)) {
    if (type === "IHDR") {
      const head = data.slice();
      head[9] = 3;
      parts.push(...chunk("IHDR", head), ...chunk("PLTE", palette));
    } else if (type === "IDAT" || type === "IEND") {
      parts.push(...chunk(type, data));
    }
  }
  return new Blob(parts, { type: "image/png" });
}

function chunk(type, data) {
  const body = new Uint8Array(4 + data.length);
  body.set([...type].map((letter) => letter.charCodeAt(0)));
  body.set(data, 4);
  const [length, check] = [new DataView(new ArrayBuffer(4)), new DataView(new ArrayBuffer(4))];
  length.setUint32(0, data.length);
  check.setUint32(0, crc(body));
  return [length, body, check];
}

const TABLE = Uint32Array.from({ length: 256 }, (_, start) => {
  let value = start;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = TABLE[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}
