// Asks the worker, and gives its answer as a promise.

const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
const waiting = new Map();
let asked = 0;

worker.onmessage = ({ data: { number, result, error } }) => {
  const { resolve, reject } = waiting.get(number);
  waiting.delete(number);
  if (error === undefined) resolve(result);
  else reject(new Error(error));
};

worker.onerror = () => {
  for (const { reject } of waiting.values()) reject(new Error("a part of it could not be loaded"));
  waiting.clear();
};

/** The result of one of worker.js's tasks. */
export function work(task, given) {
  asked += 1;
  const number = asked;
  return new Promise((resolve, reject) => {
    waiting.set(number, { resolve, reject });
    worker.postMessage({ number, task, given });
  });
}
