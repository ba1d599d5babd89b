// The page's controller: when requests are sent and where results are shown. Foreign text is only set as text content.

import { Failure, getJson, key } from "./api.js";
import { Chat } from "./chat.js";
import { Groups, figure, sizeOf } from "./groups.js";

const POLL_MILLISECONDS = 1000;
/** Looks at the numbers between two looks at the list of models. */
const POLLS_PER_LIST = 5;
/** Points of the line of tokens per second. */
const NUM_RATES = 60;
const EXAMPLES = [
  "Explain what a mutex is to somebody who cooks.",
  "Write two sentences about rain on a tin roof.",
  "fn largest(values: &[u32]) -> Option<u32> {",
];

const find = (id) => document.getElementById(id);
const prompt = find("prompt");
const adapterChoice = find("adapter");
const chat = new Chat(find("conversation"), find("welcome"));
const groups = new Groups(find("map"), find("group-rows"));

const known = { base: null, models: [], listed: "", rates: new Array(NUM_RATES).fill(0), last: null, clusters: [], polls: 0, needsKey: false };

// Asking

async function send() {
  const text = prompt.value.trim();
  if (!text) return;
  if (chat.isAnswering) return announce("Still answering. Escape stops it.");
  if (!known.base) return showTrouble("The server is not reachable. Your message is kept.");
  const settings = readSettings();
  if (!settings) return;
  const sides = [{ place: "base", label: "Base", model: known.base.id, adapter: null }];
  const adapted = known.models.find((model) => model.id === adapterChoice.value);
  if (adapted) {
    const { adapter } = adapted.chameleon;
    const { scale } = settings.chameleon;
    sides.push({ place: "adapted", label: adapter, model: adapted.id, adapter, scale });
  }
  prompt.value = "";
  fitPrompt();
  const asked = chat.ask(text, sides, settings);
  showAnswering();
  announce("Answering.");
  const turn = await asked;
  showAnswering();
  announce(turn.answers.some((answer) => answer.isBroken) ? "An answer failed." : "Answered.");
  const refused = turn.answers.find((answer) => answer.error?.status === 401);
  if (refused) askForKey(refused.error.message);
  await look();
}

function readSettings() {
  const fields = ["temperature", "max-tokens", "seed", "scale"].map(find);
  const wrong = fields.find((field) => !field.checkValidity());
  if (wrong) {
    showSettings(true);
    wrong.reportValidity();
    return null;
  }
  const [temperature, maxTokens, seed, scale] = fields.map((field) => field.valueAsNumber);
  const condition = find("condition").value;
  return {
    temperature,
    max_tokens: maxTokens,
    seed,
    chameleon: condition ? { scale, condition } : { scale },
  };
}

function stop() {
  if (!chat.isAnswering) return;
  chat.stop();
  announce("Stopped.");
}

chat.onNote = (answer, note) => {
  if (note.cluster == null) return;
  known.last = { adapter: answer.side.adapter, note, scale: answer.side.scale };
  showFactors();
  look();
};

// Looking

let isLooking = false;

/** Asks for the numbers and shows them; never twice at once. */
async function look() {
  if (isLooking || known.needsKey) return;
  isLooking = true;
  try {
    if (!known.base || known.polls % POLLS_PER_LIST === 0) showModels(await getJson("v1/models"));
    known.polls += 1;
    showStats(await getJson("v1/stats"));
    const adapter = chosenAdapter();
    if (adapter) {
      const list = await getJson(`v1/clusters?adapter=${encodeURIComponent(adapter)}`);
      showClusters(adapter, list.data[0].clusters);
    }
    showHealth("ready", "Ready");
    showTrouble("");
  } catch (error) {
    lookFailed(error);
  } finally {
    isLooking = false;
  }
}

function lookFailed(error) {
  if (!(error instanceof Failure)) throw error;
  if (error.status === 401) return askForKey(key.value ? error.message : "");
  // An unloaded adapter is missing from the next list.
  if (error.code === "model_not_found") known.polls = 0;
  else known.base = null;
  if (error.status === 0) return showHealth("gone", "Not reachable");
  showHealth("gone", "Refuses");
  showTrouble(error.message);
}

async function watch() {
  while (true) {
    if (!document.hidden) await look();
    await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
  }
}

// Showing

function showModels({ data }) {
  known.models = data;
  known.base = data.find((model) => !model.chameleon.adapter);
  const listed = JSON.stringify(data.map((model) => model.id));
  if (listed === known.listed) return;
  known.listed = listed;
  find("model-name").textContent = known.base.id;
  document.title = `${known.base.id} · Chameleon`;
  const maxTokens = find("max-tokens");
  maxTokens.max = known.base.chameleon.max_new_tokens;
  if (maxTokens.valueAsNumber > Number(maxTokens.max)) maxTokens.value = maxTokens.max;
  const chosen = adapterChoice.value;
  const adapted = data.filter((model) => model.chameleon.adapter);
  const options = adapted.map((model) => new Option(model.chameleon.adapter, model.id));
  adapterChoice.replaceChildren(...options, new Option(options.length > 0 ? "none" : "none is loaded", ""));
  const stays = adapted.some((model) => model.id === chosen);
  adapterChoice.value = stays ? chosen : (adapted[0]?.id ?? "");
  showChoice();
}

function showChoice() {
  const adapter = chosenAdapter();
  find("groups").hidden = find("all-groups").hidden = !adapter;
  find("groups-empty").hidden = Boolean(adapter);
  find("groups-empty").textContent =
    known.models.length > 1
      ? "No adapter is chosen, so nothing is grouped."
      : "No adapter is loaded. Start the server with --adapter NAME=DIR, or load one by POST /v1/adapters.";
  const trained = known.models.find((model) => model.id === adapterChoice.value)?.chameleon.condition;
  find("condition").options[0].textContent = trained ? `as trained: ${trained}` : "as trained";
  find("scale").disabled = find("condition").disabled = !adapter;
}

function showClusters(adapter, clusters) {
  if (adapter !== chosenAdapter()) return;
  known.clusters = clusters;
  const last = known.last?.adapter === adapter ? known.last.note.cluster : null;
  groups.update(clusters, last);
  if (known.last?.adapter === adapter) showFactors();
}

function showFactors() {
  const { adapter, note, scale } = known.last;
  find("factors").hidden = false;
  find("factors-empty").hidden = true;
  find("factor-adapter").textContent = adapter;
  const isShown = adapter === chosenAdapter();
  find("factor-group").textContent = isShown && known.clusters.length > 0
    ? `${note.cluster}, among ${known.clusters.length}`
    : String(note.cluster);
  const size = note.group_size > 1 ? `, over ${note.group_size} prompts` : "";
  find("factor-condition").textContent = `${note.condition}${size}`;
  find("factor-distance").textContent = figure(note.distance);
  if (!isShown) return;
  const norm = known.clusters.find((group) => group.cluster === note.cluster)?.delta_norm;
  const scaled = norm == null ? null : norm * Math.abs(scale);
  const largest = Math.max(scaled ?? 0, ...known.clusters.map((group) => group.delta_norm ?? 0));
  find("factor-norm").replaceChildren(...sizeOf(scaled, largest));
}

function showStats(stats) {
  const rate = stats.tokens_per_second;
  find("rate").textContent = rate.toFixed(rate >= 10 || rate === 0 ? 0 : 1);
  find("stat-requests").textContent = `${stats.requests_running}, ${stats.requests_waiting}`;
  find("stat-tokens").textContent = stats.generated_tokens.toLocaleString();
  find("stat-factors").textContent = `${stats.factors_cached}, ${stats.factor_hits.toLocaleString()} times`;
  find("stat-cache").textContent = `${Math.round((100 * stats.reserved_tokens) / stats.max_cached_tokens)} %`;
  known.rates = [...known.rates, rate].slice(-NUM_RATES);
  drawRates();
}

function drawRates() {
  const most = Math.max(1, ...known.rates);
  const step = 160 / (NUM_RATES - 1);
  const points = known.rates.map((rate, idx) => {
    const [x, y] = [idx * step, 34 - (32 * rate) / most];
    return `${x.toFixed(1)} ${y.toFixed(1)}`;
  });
  const line = `M${points.join("L")}`;
  find("rate-line").querySelector(".line").setAttribute("d", line);
  find("rate-line").querySelector(".area").setAttribute("d", `${line}L160 36L0 36Z`);
}

function showHealth(state, text) {
  const health = find("health");
  if (health.dataset.state === state && find("health-text").textContent === text) return;
  if (health.dataset.state !== "connecting" || state !== "ready") announce(text);
  health.dataset.state = state;
  find("health-text").textContent = text;
}

function showAnswering() {
  find("send").hidden = chat.isAnswering;
  find("stop").hidden = !chat.isAnswering;
  find("clear").hidden = chat.isAnswering || chat.turns.length === 0;
  // The focused button may have been removed.
  if (document.activeElement === document.body) prompt.focus();
}

function showSettings(isShown) {
  find("settings").hidden = !isShown;
  find("settings-toggle").setAttribute("aria-expanded", String(isShown));
}

function askForKey(message) {
  known.needsKey = true;
  showHealth("gone", "Needs a key");
  find("key-form").hidden = false;
  find("key-message").textContent = message;
  find("key").setAttribute("aria-invalid", String(Boolean(message)));
  find("key").focus();
}

function showTrouble(text) {
  find("trouble").textContent = text;
  find("trouble").hidden = !text;
}

function announce(text) {
  find("announcement").textContent = text;
}

function chosenAdapter() {
  return known.models.find((model) => model.id === adapterChoice.value)?.chameleon.adapter ?? null;
}

function fitPrompt() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
}

// Listening

find("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
prompt.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
});
prompt.addEventListener("input", fitPrompt);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});
find("stop").addEventListener("click", stop);
find("clear").addEventListener("click", () => {
  chat.clear();
  showAnswering();
  prompt.focus();
});
find("settings-toggle").addEventListener("click", () => showSettings(find("settings").hidden));
adapterChoice.addEventListener("change", () => {
  known.clusters = [];
  showChoice();
  look();
});
find("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  key.keep(find("key").value);
  known.needsKey = false;
  find("key-message").textContent = "";
  await look();
  if (known.needsKey) return;
  find("key-form").hidden = true;
  prompt.focus();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});

find("examples").replaceChildren(
  ...EXAMPLES.map((example) => {
    const [item, button] = [document.createElement("li"), document.createElement("button")];
    button.type = "button";
    button.textContent = example;
    button.addEventListener("click", () => {
      prompt.value = example;
      send();
    });
    item.append(button);
    return item;
  }),
);
key.load();
watch();
