// The dialog that asks for a key, once however many requests wait for it.

let open = null;

/** The key that the user gave, or null. */
export function askForKey(wrong) {
  open ??= show(wrong).finally(() => { open = null; });
  return open;
}

function show(wrong) {
  const dialog = document.getElementById("key");
  const field = dialog.querySelector("input");
  dialog.querySelector("[data-wrong]").hidden = !wrong;
  field.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "use" ? field.value.trim() || null : null), { once: true });
  });
}
