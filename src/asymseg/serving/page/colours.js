// A class's colour as the server writes it, `#rrggbb`, in the forms that pixels want.

export const rgbOf = (colour) => [1, 3, 5].map((place) => Number.parseInt(colour.slice(place, place + 2), 16));

/** One RGBA word per id: nothing where hidden; where one is lit the others fade. */
export function colourWords(classes, hidden, lit = null) {
  const words = new Uint32Array(256);
  for (const { id, colour } of classes) {
    const [red, green, blue] = rgbOf(colour);
    const cover = hidden.has(id) ? 0 : lit === null || lit === id ? 255 : 40;
    words[id] = ((cover << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  }
  return words;
}
