// The page as a whole: which picture and model are in work, and what is told to whom.

import "./field.js";
import { showModel, showModels } from "./about.js";
import * as api from "./api.js";
import { colourWords } from "./colours.js";
import { percentOf, point, showLegend } from "./legend.js";
import { explain, hideNotice, showNotice } from "./notice.js";
import * as pixel from "./pixel.js";
import * as sources from "./sources.js";
import * as stage from "./stage.js";
import * as states from "./states.js";
import { work } from "./work.js";

const MOST = 2560; // pixels of the long side on the screen; questions and files keep all of them
const SMALL = 1600; // of a copy for servers that find the picture too large
const find = (id) => document.getElementById(id);

let model = null;
let result = null; // {blob, name, model, bitmap, answer, map, hidden}: what is on the page
let looking = null; // the AbortController of the picture in work, with its blob and name
let asking = null; // and of the question in work

const say = (words) => { find("say").textContent = words; };
const opacity = () => Number(find("opacity").value) / 100;

/** Looks at a picture: shows it at once, its classes when they come. A failure leaves what was there before. */
async function look(blob, name, wanted = model?.name) {
  looking?.abort();
  const mine = Object.assign(new AbortController(), { blob, name });
  looking = mine;
  const { signal } = mine;
  hideNotice();
  forget();
  const busy = states.busy();
  say("Looking at the picture.");
  const local = work("picture", { blob, most: MOST }).catch(() => null); // TIFF and arrays: no browser shows them
  stage.showPicture(null, 4, 3);
  local.then((picture) => { if (picture && looking === mine) stage.showPicture(picture.bitmap, picture.width, picture.height); });
  try {
    const answer = await api.predict(blob, wanted, signal, (seconds) => busy.say(`The server is busy; asking again in ${seconds} s`));
    const map = await mapOf(answer);
    let [picture, source] = [await local, blob];
    if (picture?.width !== answer.width || picture?.height !== answer.height) {
      source = await api.seen(blob, wanted, signal);
      picture = await work("picture", { blob: source, most: MOST });
    }
    if (looking !== mine) return;
    result?.bitmap.close();
    result = { blob, source, name, model: wanted, bitmap: picture.bitmap, answer, map, hidden: new Set() };
    present();
    say(summary(answer));
  } catch (error) {
    if (looking !== mine) return; // another picture has taken its place
    if (result) present();
    else states.empty();
    if (error.name !== "AbortError") showNotice(explain(error, name), () => look(blob, name, wanted), () => lookSmaller(blob, name, wanted));
  } finally {
    busy.stop();
    if (looking === mine) looking = null;
  }
}

/** Looks at a copy that any server has room and time for. */
async function lookSmaller(blob, name, wanted) {
  try {
    await look(await work("smaller", { blob, most: SMALL }), name, wanted);
  } catch {
    showNotice({ title: "No smaller copy could be made", cure: "This browser cannot open the file; save it smaller by another program." });
  }
}

const mapOf = (answer) => work("classMap", { base64: answer.ids_png, classes: answer.classes, most: MOST });

/** Puts the result on the page. */
function present() {
  const { answer, map, bitmap } = result;
  states.done();
  stage.showPicture(bitmap, answer.width, answer.height);
  stage.showClasses(map.shown);
  find("frame").setAttribute("aria-label", summary(answer));
  showLegend(answer.classes, (hidden, lit) => {
    result.hidden = hidden;
    stage.paint(colourWords(answer.classes, hidden, lit));
  });
  find("facts").textContent = `${answer.width} × ${answer.height} pixels, looked at in ${answer.seconds.toFixed(2)} s.`;
}

function summary({ classes }) {
  const found = classes.filter(({ pixels }) => pixels > 0).sort((a, b) => b.pixels - a.pixels);
  const most = found.slice(0, 5).map(({ name, share }) => `${name} ${percentOf(share)}`);
  return `${found.length} ${found.length === 1 ? "class" : "classes"}: ${most.join(", ")}${found.length > 5 ? " and others" : ""}.`;
}

/** The class at a pixel. */
function classAt(row, column) {
  const id = result.map.ids[row * result.map.width + column];
  return result.answer.classes.find((each) => each.id === id);
}

/** Asks the server about a pixel, and shows what it says. */
async function ask(row, column) {
  asking?.abort();
  const mine = new AbortController();
  asking = mine;
  stage.mark(row, column);
  stage.showTip(null);
  pixel.showWaiting(classAt(row, column), row, column, forget);
  try {
    const answer = await askKept(row, column, mine.signal);
    if (asking !== mine) return;
    const { classes, width, height } = result.answer;
    pixel.showAnswer(classAt(row, column), answer, classes, { width, height }, (blocks) => stage.showRegions(blocks), forget);
    setView(answer.attention?.length ? "regions" : "classes");
    const { name, probability } = answer.probabilities[0];
    say(`Row ${row}, column ${column}: ${name}, ${percentOf(probability)}.`);
  } catch (error) {
    if (error.name === "AbortError" || asking !== mine) return;
    forget();
    showNotice(explain(error), () => ask(row, column));
  }
}

/** The answer about a pixel. The server keeps a result for minutes only; then the picture is sent once more. */
async function askKept(row, column, signal) {
  const mine = result; // another picture may take its place meanwhile
  const again = async () => {
    const answer = await api.predict(mine.blob, mine.model, signal, () => {});
    if (answer.id === null) throw new api.Refusal(413, "not_kept", "The server cannot keep a picture of this size, so it cannot tell about its pixels.");
    const same = answer.version === mine.answer.version;
    mine.answer = answer;
    if (same) return;
    mine.map = await mapOf(answer); // a newer model has taken the place of the one that we asked
    if (result !== mine) return;
    present();
    stage.mark(row, column);
  };
  if (mine.answer.id === null) await again();
  try {
    return await api.pixel(mine.answer.id, row, column, signal);
  } catch (error) {
    if (error.status !== 404) throw error;
    await again();
    return api.pixel(mine.answer.id, row, column, signal);
  }
}

/** Back to the classes. */
function forget() {
  asking?.abort();
  asking = null;
  pixel.hide();
  stage.unmark();
  setView("classes");
}

function setView(view) {
  document.body.dataset.view = view;
  find("layer").textContent = view === "regions" ? "Regions" : "Classes";
}

function save(blob, ending) {
  const address = URL.createObjectURL(blob);
  const stem = result.name.replace(/\.[^.]*$/, "").replaceAll(" ", "-");
  Object.assign(document.createElement("a"), { href: address, download: `${stem}-${ending}` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

stage.listen({
  onPoint(row, column, byKeys) {
    const said = classAt(row, column);
    stage.showTip(said, row, column);
    point(said.id);
    if (byKeys) say(said.name);
  },
  onLeave() {
    stage.showTip(null);
    point(null);
  },
  onChoose: ask,
  onBack: forget,
});
sources.listen({ onPicture: look, onTrouble: (title, cure) => showNotice({ title, cure }) });
find("status").querySelector("button").addEventListener("click", () => looking?.abort());
find("opacity").addEventListener("input", () => find("frame").style.setProperty("--opacity", opacity()));
find("save-mask").addEventListener("click", () => save(result.map.mask, "mask.png"));
find("save-overlay").addEventListener("click", async () => {
  const { source, answer, map, hidden } = result;
  const colours = colourWords(answer.classes, hidden);
  const { width, height } = answer;
  try {
    save(await work("overlay", { blob: source, width, height, ids: map.ids, colours, opacity: opacity() }), "overlay.jpg");
  } catch (error) {
    showNotice(explain(error));
  }
});

async function begin() {
  try {
    const given = await api.models();
    const choose = (name) => {
      model = given.find((each) => each.name === name);
      showModel(model);
    };
    choose(given[0].name);
    showModels(given, (name) => {
      choose(name);
      const shown = looking ?? result;
      if (shown) look(shown.blob, shown.name);
    });
    await sources.showExamples(look);
  } catch (error) {
    showNotice(explain(error), begin);
  }
}

begin();
