// Errors, told kindly: what is the matter, and what helps.

import { Refusal } from "./api.js";

const root = document.getElementById("notice");

const TITLES = {
  0: "The server does not answer",
  400: "That does not seem to be a picture",
  401: "This server asks for a key",
  404: "The server no longer has that",
  413: "That is more than this server takes",
  503: "The server has its hands full",
  504: "That took too long",
};

/** Title and cure for an error with the picture of that name, and whether to try again makes sense. */
export function explain(error, name) {
  if (!(error instanceof Refusal)) return { title: "This page has stumbled", cure: `${error.message}. Reload it, and if that does not help please report this.` };
  const title = TITLES[error.status] ?? (error.status >= 500 ? "Something broke on the server" : "The server did not accept that");
  if (error.status === 400 && name) return { title, cure: `“${name}” cannot be read as one. JPEG, PNG, WebP, BMP and TIFF can, and arrays in .npy files.` };
  return { title, cure: error.message, again: error.status === 0 || error.status === 401 || error.status >= 500 };
}

/** Shows it. `onAgain` is offered where it makes sense. */
export function showNotice({ title, cure, again }, onAgain) {
  const close = Object.assign(document.createElement("button"), { type: "button", className: "quiet icon", textContent: "×", onclick: hideNotice });
  close.setAttribute("aria-label", "Close");
  root.replaceChildren(
    Object.assign(document.createElement("h2"), { textContent: title }),
    Object.assign(document.createElement("p"), { textContent: sentence(cure) }),
    close,
  );
  if (again) {
    const retry = () => { hideNotice(); onAgain(); };
    root.append(Object.assign(document.createElement("button"), { type: "button", textContent: "Try again", onclick: retry }));
  }
  root.hidden = false;
}

export function hideNotice() {
  root.hidden = true;
  root.replaceChildren();
}

const sentence = (words) => words.charAt(0).toUpperCase() + words.slice(1);
