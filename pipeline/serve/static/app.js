"use strict";
// Names and paths only ever become text nodes.
const $ = (id) => document.getElementById(id);
const form = $("ask"), q = $("q"), results = $("results"), status = $("status"), player = $("player"), video = $("video");
let asked = 0;

const clock = (s) => {
  const whole = Math.floor(s), pad = (n) => String(n).padStart(2, "0");
  const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
  return hours ? `${hours}:${pad(minutes)}:${pad(whole % 60)}` : `${minutes}:${pad(whole % 60)}`;
};

async function ask(address, title, options) {
  const mine = ++asked;
  status.textContent = "searching …";
  results.setAttribute("aria-busy", "true");
  let found;
  try {
    const answer = await fetch(address, options);
    if (answer.status === 401) return void location.assign("/login");
    found = await answer.json();
    if (!answer.ok) throw new Error([found.error.what, found.error.hint].filter(Boolean).join(": "));
  } catch (error) {
    if (mine === asked) {
      results.replaceChildren();
      status.textContent = error instanceof TypeError || error instanceof SyntaxError ? "the server does not answer" : error.message;
      results.setAttribute("aria-busy", "false");
    }
    return;
  }
  if (mine !== asked) return;
  results.replaceChildren(...found.answers.map(card));
  const count = found.answers.length;
  const said = `${count || "no"} video${count === 1 ? "" : "s"} ${title}`;
  status.textContent = [said, `${(found.seconds * 1000).toFixed(1)} ms`, ...found.notes].join(" · ");
  results.setAttribute("aria-busy", "false");
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
  return made;
}

function like(found) {
  history.pushState(null, "", `?like=${found.row}`);
  ask(`/api/windows/${found.row}/like`, `like ${found.name}`).then(() => results.querySelector(".play")?.focus());
}

function play(found) {
  $("playing").textContent = `${found.name}, ${clock(found.second)}`;
  $("path").textContent = found.path;
  $("unplayable").hidden = true;
  video.hidden = !found.playable;
  if (found.playable) {
    video.src = `/api/windows/${found.row}/video`;
    video.addEventListener("loadedmetadata", () => {
      video.currentTime = found.second;
      video.play().catch(() => {});
    }, { once: true });
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
  ask("/api/search/clip", `like the clip ${file.name}`, { method: "POST", body });
}

function restore() {
  const given = new URLSearchParams(location.search), sentence = given.get("q"), row = given.get("like");
  if (sentence) {
    q.value = sentence;
    ask(`/api/search?${new URLSearchParams({ q: sentence })}`, `for “${sentence}”`);
  } else if (/^[0-9]{1,18}$/.test(row || "")) ask(`/api/windows/${row}/like`, "like it");
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
    const sentence = q.value.trim();
    if (!sentence) return;
    history.pushState(null, "", `?${new URLSearchParams({ q: sentence })}`);
    ask(`/api/search?${new URLSearchParams({ q: sentence })}`, `for “${sentence}”`);
  });
  $("clip").addEventListener("change", (event) => { hand(event.target.files[0]); event.target.value = ""; });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => { event.preventDefault(); if (!$("clip").disabled) hand(event.dataTransfer.files[0]); });
  addEventListener("popstate", restore);
  addEventListener("keydown", (event) => {
    if (player.open || event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target === q, result = event.target.closest?.(".result");
    if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); step(event.key === "ArrowDown" ? 1 : -1); }
    else if (event.key === "/" && !typing) { event.preventDefault(); q.focus(); q.select(); }
    else if (event.key === "m" && result) like(result.found);
  });
  video.addEventListener("error", () => { if (video.hasAttribute("src")) cannot("This browser cannot play this file. It lies here:"); });
  player.addEventListener("close", closed);
  player.addEventListener("click", (event) => { if (event.target === player) player.close(); });
  $("close").addEventListener("click", () => player.close());
  restore();
}
