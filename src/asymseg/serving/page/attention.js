// Where a pixel looked, as rectangles that are exact.
//
// Each weight is spread evenly over its region, and the pyramid's grids lie on top of each other. So the sum is constant
// between neighbouring borders of all regions: a few dozen rows and columns, however large the picture is.

const NAMES = { afnb: "Fusion", apnb: "Context" };

/** A block's name in words. */
export const blockName = (block) => NAMES[block.block] ?? block.block;

/** Borders and the heat between them: `heat[i * (columns.length - 1) + j]` per pixel of that rectangle. */
export function heatOf(blocks) {
  const regions = blocks.flatMap((block) => block.regions).filter((region) => area(region) > 0);
  const rows = borders(regions, "top", "bottom");
  const columns = borders(regions, "left", "right");
  const across = columns.length - 1;
  const heat = new Float64Array(Math.max(0, rows.length - 1) * Math.max(0, across));
  for (const region of regions) {
    const share = region.weight / area(region);
    for (let i = rows.indexOf(region.top); rows[i] < region.bottom; i += 1) {
      for (let j = columns.indexOf(region.left); columns[j] < region.right; j += 1) heat[i * across + j] += share;
    }
  }
  return { rows, columns, heat };
}

/** The region of most weight that is not the whole picture. */
export function strongest(block, height, width) {
  const parts = block.regions.filter((region) => area(region) > 0 && area(region) < height * width);
  return parts.reduce((best, region) => (best && best.weight >= region.weight ? best : region), null);
}

const area = ({ top, left, bottom, right }) => Math.max(0, bottom - top) * Math.max(0, right - left);

function borders(regions, first, last) {
  return [...new Set(regions.flatMap((region) => [region[first], region[last]]))].sort((a, b) => a - b);
}

// matplotlib's inferno at nine places, as `Attention.picture` draws it.
const GLOW = [[0, 0, 4], [33, 12, 74], [87, 16, 110], [138, 34, 106], [188, 55, 84], [228, 90, 49], [249, 142, 9], [249, 203, 53], [252, 255, 164]];

/** Draws the heat into a canvas that stands for a picture of that size; the hottest place is the brightest. */
export function drawHeat(canvas, { rows, columns, heat }, height, width) {
  const brush = canvas.getContext("2d");
  const [down, across] = [canvas.height / height, canvas.width / width];
  const most = heat.reduce((high, value) => Math.max(high, value), 1e-12);
  brush.clearRect(0, 0, canvas.width, canvas.height);
  for (let i = 0; i + 1 < rows.length; i += 1) {
    // Whole pixels of the canvas, or hairlines would show where two rectangles meet.
    const [top, bottom] = [Math.round(rows[i] * down), Math.round(rows[i + 1] * down)];
    for (let j = 0; j + 1 < columns.length; j += 1) {
      const share = heat[i * (columns.length - 1) + j] / most;
      const [left, right] = [Math.round(columns[j] * across), Math.round(columns[j + 1] * across)];
      brush.fillStyle = `rgb(${glow(share).join(" ")} / ${Math.sqrt(share)})`;
      brush.fillRect(left, top, right - left, bottom - top);
    }
  }
}

function glow(share) {
  const place = share * (GLOW.length - 1);
  const low = Math.min(Math.floor(place), GLOW.length - 2);
  return GLOW[low].map((value, channel) => Math.round(value + (place - low) * (GLOW[low + 1][channel] - value)));
}
