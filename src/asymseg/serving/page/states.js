// Empty, busy, done: what of the page is there in each is for the style sheets, by `data-state`.

import { glimmer } from "./stage.js";

// What these say and do is of a picture that has been looked at.
const SETTLED = ["frame", "tools", "legend", "hint"].map((id) => document.getElementById(id));
const words = document.querySelector("#status span");

function enter(state) {
  document.body.dataset.state = state;
  for (const part of SETTLED) part.inert = state === "busy";
}

export const empty = () => enter("empty");
export const done = () => enter("done");

/** Says that the page is busy and for how long; `stop()` ends that, `say(sentence)` is said until the next second. */
export function busy() {
  enter("busy");
  const started = performance.now();
  let told = "";
  const tick = () => {
    const seconds = Math.floor((performance.now() - started) / 1000);
    words.textContent = told || (seconds ? `Looking at it … ${seconds} s` : "Looking at it …");
    told = "";
  };
  tick();
  const timer = setInterval(tick, 1000);
  const rest = glimmer();
  return {
    stop() {
      clearInterval(timer);
      rest();
    },
    say(sentence) {
      told = sentence;
      words.textContent = sentence;
    },
  };
}
