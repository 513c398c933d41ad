"use strict";
// Texts of labels and messages go into the page as text alone, never as markup.

const place = (id) => document.getElementById(id);

/** The text with control characters, overrides of direction and the like as escapes; browsers would obey some, and hide others. */
function visible(text) {
  return String(text).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) => {
    if ("\u200c\u200d".includes(character)) return character; // joiners inside of words
    const code = character.codePointAt(0).toString(16);
    return code.length > 4 ? `\\U${code.padStart(8, "0")}` : code.length > 2 ? `\\u${code.padStart(4, "0")}` : `\\x${code.padStart(2, "0")}`;
  });
}

function say(text, bad = false) {
  const message = place("message");
  message.textContent = visible(text);
  message.classList.toggle("bad", bad);
  message.hidden = false;
}

/** The JSON of a response; throws an Error with the server's sentence. */
async function ask(path, body, token) {
  const options = body === undefined ? {} : { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  if (token) options.headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer; is it still running?");
  }
  const content = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(content.error?.message ?? `The server answered with status ${response.status}.`);
  return content;
}

function cell(row, text, kind = "") {
  const added = row.insertCell();
  added.textContent = visible(text);
  added.dir = "auto";
  if (kind) added.className = kind;
  return added;
}

/** Take the rows of a table away, and show it; returns where new ones go. */
function emptied(table) {
  const body = place(table).tBodies[0];
  body.replaceChildren();
  place(table).hidden = false;
  return body;
}

function reason(said) {
  const named = said.kind.startsWith("word") ? said.text : `${said.kind} “${said.text}”`;
  return `${named} ${said.value >= 0 ? "+" : "−"}${Math.abs(said.value).toFixed(2)}`;
}

async function showState() {
  const { labels, version } = await ask("ready");
  place("state").textContent = `${labels.toLocaleString("en")} labels, ${version.toLocaleString("en")} changes`;
}

async function showAnswers() {
  const explain = place("explain").checked;
  const where = place("where").value.trim();
  const body = { texts: [place("text").value], k: Number(place("k").value), explain, ...(where && { where }) };
  const { answers } = await ask("predict", body);
  const rows = emptied("answers");
  for (const label of answers[0].labels) {
    const row = rows.insertRow();
    cell(row, label.score.toFixed(4), "number");
    cell(row, label.text || "—");
    cell(row, label.uid);
    cell(row, (label.explanation ?? []).map(reason).join(", "), "why");
  }
  for (const why of document.querySelectorAll("#answers .why")) why.hidden = !explain;
  say(answers[0].labels.length ? "Answered." : "No label fits.");
}

async function showLabels() {
  const { labels } = await ask(`labels?limit=50&text=${encodeURIComponent(place("words").value)}`);
  const rows = emptied("labels");
  for (const { uid, text, ...columns } of labels) {
    const row = rows.insertRow();
    cell(row, text || "—");
    cell(row, uid);
    cell(row, Object.entries(columns).map(([name, value]) => `${name}: ${JSON.stringify(value)}`).join(", "));
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Remove";
    button.setAttribute("aria-label", visible(`Remove the label ${uid}`));
    button.addEventListener("click", () => guarded(() => remove(uid)));
    cell(row, "").append(button);
  }
  say(labels.length ? "The shortest texts first, at most 50." : "No label's text has that.");
}

async function change(body, done) {
  const { version } = await ask("labels", body, place("token").value);
  await showState();
  say(`${done} This is the change ${version.toLocaleString("en")}.`);
}

async function remove(uid) {
  if (!place("token").value) {
    place("token").focus();
    throw new Error("Type in the token first: removing a label needs it.");
  }
  await change({ remove: [uid] }, `The label ${uid} is removed.`);
  if (!place("labels").hidden) {
    const said = place("message").textContent;
    await showLabels();
    say(said);
  }
}

async function add() {
  const examples = place("examples").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const label = { uid: place("new-uid").value, text: place("new-text").value, ...(examples.length && { examples }) };
  await change({ add: [label] }, `The label ${label.uid} is added.`);
  for (const id of ["new-uid", "new-text", "examples"]) place(id).value = "";
}

let busy = false;

/** Run one action at a time, and say what went wrong. */
async function guarded(action) {
  if (busy) return;
  busy = true;
  try {
    await action();
  } catch (error) {
    say(error.message, true);
  } finally {
    busy = false;
  }
}

for (const [form, action] of [["ask", showAnswers], ["find", showLabels], ["add", add]]) {
  place(form).addEventListener("submit", (event) => {
    event.preventDefault();
    guarded(action);
  });
}
guarded(showState);
