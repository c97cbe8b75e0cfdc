// Which model answers, and what is known of it.

const [select, label] = [document.querySelector("#model select"), document.querySelector("#model > span")];
const list = document.querySelector("#about dl");

/** Offers the models, where there is a choice. */
export function showModels(models, onChoose) {
  select.replaceChildren(...models.map(({ name }) => new Option(name, name)));
  select.hidden = models.length < 2;
  label.hidden = models.length > 1;
  select.onchange = () => onChoose(select.value);
}

/** Says what there is to say of a model. */
export function showModel(model) {
  label.textContent = model.name;
  const names = model.classes.map(({ name }) => name);
  const facts = {
    Name: model.name,
    Classes: `${names.length}: ${names.join(", ")}`,
    Parameters: model.parameters && `${(model.parameters / 1e6).toFixed(2)} million`,
    Sees: model.seeing,
    Scores: scores(model.metrics),
    Licence: model.license,
    Source: model.source,
    "Runs on": model.device,
    Version: model.version,
  };
  list.replaceChildren(...Object.entries(facts).filter(([, fact]) => fact).flatMap(([name, fact]) => [
    Object.assign(document.createElement("dt"), { textContent: name }),
    Object.assign(document.createElement("dd"), { textContent: fact }),
  ]));
  document.getElementById("promise").textContent = promise(names, model.attention);
}

function promise(names, attention) {
  const some = names.length > 4 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", ");
  const why = attention ? "see which parts of the picture it drew on" : "see how sure that is";
  return `See any picture sorted into ${some}. Then ask a pixel why, and ${why}.`;
}

/** Those that are shares; what else stands among them (steps, splits) is no score. */
function scores(metrics) {
  return Object.entries(metrics ?? {})
    .filter(([, value]) => typeof value === "number" && value >= 0 && value <= 1)
    .map(([name, value]) => `${name.replaceAll("_", " ")} ${(100 * value).toFixed(1)} %`)
    .join(", ");
}
