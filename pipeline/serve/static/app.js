"use strict";
// Names and paths only ever become text nodes.
const $ = (id) => document.getElementById(id);
const form = $("ask"), q = $("q"), results = $("results"), status = $("status"), player = $("player"), video = $("video");
const UNKNOWN = "This browser cannot play this file. It lies here:";
const FILTERS = ["under", "since", "until", "tag"];
let asked = 0, question = null;

const clock = (s) => {
  const whole = Math.floor(s), pad = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
};

const reason = (error) => error instanceof TypeError || error instanceof SyntaxError ? "the server does not answer" : error.message;

// What the server says; nothing where it asks for the token first.
async function call(address, options) {
  const answer = await fetch(address, options);
  if (answer.status === 401) return void location.assign("/login");
  const said = await answer.json();
  if (!answer.ok) throw new Error([said.error.what, said.error.hint].filter(Boolean).join(": "));
  return said;
}

async function ask(address, title, options) {
  const mine = ++asked;
  status.textContent = "searching …";
  results.setAttribute("aria-busy", "true");
  let found, failed = "";
  try {
    found = await call(address, options);
    if (!found) return;
  } catch (error) { failed = reason(error); }
  if (mine !== asked) return;
  results.replaceChildren(...(found ? found.answers.map(card) : []));
  const many = results.children.length;
  const said = `${many || "no"} video${many === 1 ? "" : "s"} ${title}${Object.keys(chosen()).length ? ", filtered" : ""}`;
  status.textContent = failed || [said, `${(found.seconds * 1000).toFixed(1)} ms`, ...found.notes].join(" · ");
  results.setAttribute("aria-busy", "false");
}

// What stands in the filters, as the page's address keeps it.
const chosen = () => Object.fromEntries(FILTERS.map((name) => [name, $(name).value.trim()]).filter(([, value]) => value));

// A day of this browser's clock, in seconds: its beginning, or its end.
function second(day, end) {
  const [year, month, date] = day.split("-").map(Number), at = new Date(year, month - 1, date + end).getTime() / 1000 - end * .001;
  return Math.min(Math.max(at, 0), 1e11);
}

function put(next, keep = "pushState") {
  question = next;
  const { since, until, ...others } = chosen();
  const given = new URLSearchParams({ ...next.given, ...others });
  if (since) given.set("since", second(since, 0));
  if (until) given.set("until", second(until, 1));
  if (keep && next.address) history[keep](null, "", `?${new URLSearchParams({ ...next.address, ...chosen() })}`);
  return ask(`${next.path}?${given}`, next.title, next.options);
}

const sentence = (text) => ({ path: "/api/search", given: { q: text }, address: { q: text }, title: `for “${text}”` });
const alike = (row, name) => ({ path: `/api/windows/${row}/like`, given: {}, address: { like: row }, title: `like ${name}` });

function count() {
  const set = Object.keys(chosen()).length;
  $("narrowed").textContent = set ? `Filters: ${set}` : "Filters";
  if (set) $("filters").open = true;
}

function filtered() {
  count();
  if (question) put(question, "replaceState");
  else if (q.value.trim()) put(sentence(q.value.trim()));
}

function bars(found, make) {
  const most = Math.max(...(found.weights || [1]), 1e-9);
  return found.times.map((time, k) => {
    const cell = make(time, k);
    if (found.weights) {
      const bar = document.createElement("i");
      bar.style.height = `${(100 * found.weights[k] / most).toFixed(1)}%`;
      cell.append(bar);
    } else cell.classList.add("none");
    return cell;
  });
}

function card(found) {
  const made = $("result").content.cloneNode(true), part = (name) => made.querySelector(name);
  const poster = part(".poster");
  poster.src = `/api/windows/${found.row}/poster.jpg`;
  poster.addEventListener("error", () => { poster.removeAttribute("src"); poster.alt = "no picture"; });
  part(".time").textContent = clock(found.second);
  part(".play").setAttribute("aria-label", `Play ${found.name} at ${clock(found.second)}`);
  part(".play").addEventListener("click", () => play(found));
  const most = found.weights && found.times[found.weights.indexOf(Math.max(...found.weights))];
  const heaviest = found.weights ? `, most at ${clock(most)}` : ": all alike";
  part(".strip").setAttribute("aria-label", `what its ${found.times.length} frames count${heaviest}`);
  part(".strip").append(...bars(found, () => document.createElement("span")));
  part(".name").textContent = found.name;
  part(".name").title = found.path;
  const window = found.start > 0 ? `, ${clock(found.start)} to ${clock(found.stop)}` : "";
  part(".cosine").textContent = `${found.rank}. cosine ${found.cosine.toFixed(3)}${window}`;
  part(".like").addEventListener("click", () => like(found));
  part(".result").found = found;
  part(".tagger").addEventListener("click", (event) => tagging(event.target.closest(".result")));
  part(".newtag").setAttribute("aria-label", `A tag for ${found.name}`);
  part(".tagging").addEventListener("submit", (event) => {
    event.preventDefault();
    const one = event.target.closest(".result");
    change(one, one.querySelector(".newtag").value.trim(), "PUT");
  });
  part(".newtag").addEventListener("keydown", (event) => { if (event.key === "Escape") tagging(event.target.closest(".result"), false); });
  showTags(part(".result"));
  return made;
}

function showTags(one) {
  const { name, tags } = one.found;
  one.querySelectorAll(".tag").forEach((old) => old.remove());
  one.querySelector(".tags").prepend(...tags.map((tag) => {
    const item = document.createElement("li"), only = document.createElement("button"), off = document.createElement("button");
    item.className = "tag";
    only.type = off.type = "button";
    only.className = off.className = "plain";
    only.textContent = tag;
    only.setAttribute("aria-label", `Only videos with the tag ${tag}`);
    only.addEventListener("click", () => { $("tag").value = tag; filtered(); });
    off.classList.add("untag");
    off.textContent = "×";
    off.setAttribute("aria-label", `Take the tag ${tag} from ${name}`);
    off.addEventListener("click", () => change(one, tag, "DELETE"));
    item.append(only, off);
    return item;
  }));
}

function tagging(one, open = true) {
  one.querySelector(".tagging").hidden = !open;
  one.querySelector(".newtag").value = "";
  one.querySelector(open ? ".newtag" : ".tagger").focus();
}

// Gives a video a tag, or takes it away.
async function change(one, tag, method) {
  try {
    const said = await call(`/api/windows/${one.found.row}/tags?${new URLSearchParams({ tag })}`, { method });
    if (!said) return;
    one.found.tags = said.tags;
  } catch (error) {
    status.textContent = reason(error);
    return;
  }
  if (method === "PUT" && ![...$("tags").options].some((old) => old.value === tag)) $("tags").append(new Option("", tag));
  showTags(one);
  tagging(one, false);
  status.textContent = `${one.found.name} ${method === "PUT" ? "has" : "no longer has"} the tag ${tag}`;
}

function like(found) {
  put(alike(found.row, found.name)).then(() => results.querySelector(".play")?.focus());
}

function play(found) {
  $("playing").textContent = `${found.name}, ${clock(found.second)}`;
  $("path").textContent = found.path;
  $("unplayable").hidden = true;
  video.hidden = !found.playable;
  if (found.playable) {
    video.src = `/api/windows/${found.row}/video`;
    video.onloadedmetadata = () => {
      if (!video.videoWidth) return cannot(UNKNOWN);  // it would play the sound alone
      video.currentTime = found.second;
      video.play().catch(() => {});
    };
  } else cannot("A browser cannot play this kind of file. It lies here:");
  const cells = document.createElement("div"), image = document.createElement("img");
  cells.className = "cells";
  cells.append(...bars(found, (time, k) => {
    const cell = document.createElement("button"), small = document.createElement("small");
    cell.type = "button";
    small.textContent = clock(time);
    const weight = found.weights ? `, counts ${found.weights[k].toFixed(3)}` : "";
    cell.setAttribute("aria-label", `${clock(time)}${weight}`);
    cell.append(small);
    cell.addEventListener("click", () => { video.currentTime = time; });
    return cell;
  }));
  image.alt = `the ${found.times.length} frames that were looked at`;
  image.src = `/api/windows/${found.row}/strip.jpg`;
  $("frames").replaceChildren(image, cells);
  player.showModal();
}

function cannot(text) {
  video.hidden = true;
  $("unplayable").textContent = text;
  $("unplayable").hidden = false;
}

function closed() {
  video.pause();
  video.removeAttribute("src");
  video.load();
}

function hand(file) {
  if (!file) return;
  const body = new FormData();
  body.append("clip", file);
  put({ path: "/api/search/clip", given: {}, title: `like the clip ${file.name}`, options: { method: "POST", body } });
}

function restore() {
  const given = new URLSearchParams(location.search), text = given.get("q"), row = given.get("like") || "";
  FILTERS.forEach((name) => { $(name).value = given.get(name) || ""; });
  question = null;
  count();
  if (text) {
    q.value = text;
    put(sentence(text), null);
  } else if (/^[0-9]{1,18}$/.test(row)) put(alike(row, "it"), null);
}

function step(by) {
  const all = [...results.querySelectorAll(".play")], now = document.activeElement?.closest?.(".result");
  const at = now ? all.indexOf(now.querySelector(".play")) : by > 0 ? -1 : 0;
  if (at + by < 0) q.focus();
  else all[Math.min(at + by, all.length - 1)]?.focus();
}

if (form) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = q.value.trim();
    if (text) put(sentence(text));
  });
  FILTERS.forEach((name) => $(name).addEventListener("change", filtered));
  $("clear").addEventListener("click", () => { FILTERS.forEach((name) => { $(name).value = ""; }); filtered(); });
  $("clip").addEventListener("change", (event) => { hand(event.target.files[0]); event.target.value = ""; });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => { event.preventDefault(); if (!$("clip").disabled) hand(event.dataTransfer.files[0]); });
  addEventListener("popstate", restore);
  addEventListener("keydown", (event) => {
    if (player.open || event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target === q, result = event.target.closest?.(".result");
    if (!typing && event.target.matches?.("input[type=text], input[type=date]")) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); step(event.key === "ArrowDown" ? 1 : -1); }
    else if (event.key === "/" && !typing) { event.preventDefault(); q.focus(); q.select(); }
    else if (event.key === "m" && result) like(result.found);
    else if (event.key === "t" && result) { event.preventDefault(); tagging(result); }
    else if (event.key === "f" && !typing) { event.preventDefault(); $("filters").open = true; $("under").focus(); }
  });
  video.addEventListener("error", () => { if (video.hasAttribute("src")) cannot(UNKNOWN); });
  player.addEventListener("close", closed);
  player.addEventListener("click", (event) => { if (event.target === player) player.close(); });
  $("close").addEventListener("click", () => player.close());
  restore();
}
