"use strict";

// What is shown: an image that the server keeps, and the last answer for it.
const shown = { key: null, image: null, answer: null, highest: {}, previous: null };
let about = null;

const SETTLE = 120; // ms without a move of the slider, before it is asked
const REST = 350; // ms without questions, before the clock is asked
const LEAST_SIDE = 640; // pixels of the canvas: small images are enlarged, not blurred

const $ = (id) => document.getElementById(id);

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is sact-tf live still running?");
  }
  const content = await response.json();
  if (!response.ok) throw new Error(content.error);
  return content;
}

function say(sentence) {
  $("message").hidden = !sentence;
  $("message").textContent = sentence || "";
}

// --- Images: from files, the camera, examples -------------------------------------

async function open(blob, name) {
  say("");
  if (blob.size > about.most_bytes) {
    say(`${name} has ${blob.size} bytes; at most ${about.most_bytes} are taken.`);
    return;
  }
  document.body.dataset.state = "busy";
  try {
    const headers = { "X-Name": encodeURIComponent(name) };
    const { key } = await request("photographs", { method: "POST", body: blob, headers });
    const image = new Image();
    image.src = `photographs/${key}`;
    await image.decode();
    const previous = shown.answer ? { ...shown } : shown.previous;
    Object.assign(shown, { key, image, answer: null, highest: {}, previous });
    stopCamera();
    ask();
  } catch (error) {
    say(error.message);
    document.body.dataset.state = "idle";
  }
}

async function openExample(name) {
  const response = await fetch(`examples/${encodeURIComponent(name)}`);
  await open(await response.blob(), name);
}

async function startCamera() {
  say("");
  if (!navigator.mediaDevices) {
    say("Browsers lend the camera only to pages on this machine, or over https.");
    return;
  }
  try {
    const wanted = { video: { facingMode: "environment" } };
    $("video").srcObject = await navigator.mediaDevices.getUserMedia(wanted);
  } catch (error) {
    say(`There is no camera for this page. (${error.message})`);
    return;
  }
  await $("video").play();
  show({ video: true, take: true, canvas: false, empty: false });
  $("camera").textContent = "Close the camera";
}

function stopCamera() {
  const stream = $("video").srcObject;
  if (!stream) return;
  stream.getTracks().forEach((track) => track.stop());
  $("video").srcObject = null;
  $("camera").textContent = "Camera";
  show({ video: false, take: false, canvas: !!shown.answer, empty: !shown.answer });
}

function takePicture() {
  const video = $("video");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  canvas.getContext("2d").drawImage(video, 0, 0);
  canvas.toBlob((blob) => open(blob, "The camera's picture"), "image/jpeg", 0.95);
}

function show(parts) {
  for (const [id, visible] of Object.entries(parts)) $(id).hidden = !visible;
}

// --- Questions: one at a time, and always the latest -------------------------------

let asking = false;
let again = false;
let settling = null;
let resting = null;

async function ask() {
  clearTimeout(resting);
  again = true;
  if (asking) return;
  asking = true;
  document.body.dataset.state = "busy";
  while (again && shown.key) {
    again = false;
    const key = shown.key;
    try {
      const answer = await request("answer", question(key));
      if (key !== shown.key) continue;
      say("");
      showAnswer(answer);
    } catch (error) {
      say(error.message);
      // An image that is refused leaves the last one in its place.
      if (!shown.answer && shown.previous) Object.assign(shown, shown.previous);
    }
  }
  asking = false;
  if (shown.answer) resting = setTimeout(askTimes, REST);
  else document.body.dataset.state = "idle";
}

async function askTimes() {
  const { key, answer } = shown;
  asking = true;
  try {
    const times = await request("times", question(key));
    if (key === shown.key && answer === shown.answer) showTimes(times);
  } catch (error) {
    say(error.message);
  }
  asking = false;
  if (again) ask();
  else if (!settling) document.body.dataset.state = "idle";
}

function question(photograph) {
  const halting_bias = about.halts ? Number($("bias").value) : 0;
  const headers = { "Content-Type": "application/json" };
  return { method: "POST", headers, body: JSON.stringify({ photograph, halting_bias }) };
}

function biasMoved() {
  $("bias-value").textContent = Number($("bias").value).toFixed(1);
  if (!shown.key) return;
  document.body.dataset.state = "busy";
  clearTimeout(settling);
  settling = setTimeout(() => {
    settling = null;
    ask();
  }, SETTLE);
}

// --- Answers ------------------------------------------------------------------------

function showAnswer(answer) {
  for (const map of answer.maps) {
    map.values = floats(map.values);
    map.most = map.values.reduce((most, value) => Math.max(most, value), 0);
    const low = answer.least / (map === answer.maps[0] ? 1 : answer.maps.length - 1);
    map.low = Math.min(low, map.most);
    // Colours mean the same for all biases: a map that falls gets darker.
    shown.highest[map.name] = Math.max(shown.highest[map.name] || 0, map.most);
  }
  shown.answer = answer;
  const names = answer.maps.map((map) => map.name);
  const which = $("which");
  if ([...which.options].map((option) => option.value).join() !== names.join()) {
    which.replaceChildren(...names.map((name) => new Option(name)));
  }
  $("answer").replaceChildren(...(answer.boxes ? boxRows(answer) : classRows(answer)));
  bars("flops", answer.baseline_flops, answer.flops, flopsText);
  $("times").classList.add("old");
  show({ canvas: true, empty: false, legend: true, drawing: true });
  draw();
}

function floats(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => view.getFloat32(4 * i, true));
}

function classRows(answer) {
  return answer.classes.map(({ name, share }) => row("li", name, percent(share), share));
}

function boxRows(answer) {
  if (!answer.boxes.length) {
    const item = document.createElement("li");
    item.className = "nothing";
    item.textContent = `nothing with a score of ${answer.score} or more`;
    return [item];
  }
  const counted = new Map();
  for (const { name, score } of answer.boxes) {
    const { count, best } = counted.get(name) || { count: 0, best: 0 };
    counted.set(name, { count: count + 1, best: Math.max(best, score) });
  }
  return [...counted].map(([name, { count, best }]) =>
    row("li", count > 1 ? `${count} × ${name}` : name, `score ${best.toFixed(2)}`, best));
}

function row(kind, left, right, share) {
  const element = document.createElement(kind);
  const fill = document.createElement("span");
  fill.className = "fill";
  fill.style.width = `${100 * Math.min(share, 1)}%`;
  for (const text of [left, right]) {
    const part = document.createElement("span");
    part.textContent = text;
    element.append(part);
  }
  element.append(fill);
  return element;
}

function bars(id, baseline, value, text) {
  const rows = [];
  const most = Math.max(baseline || 0, value);
  if (baseline) {
    const other = row("div", about.baseline, text(baseline), baseline / most);
    other.className = "baseline";
    other.dataset.value = baseline;
    rows.push(other);
  }
  const share = baseline ? ` = ${percent(value / baseline)}` : "";
  const own = row("div", "this", text(value) + share, value / most);
  own.className = "this";
  own.dataset.value = value;
  $(id).classList.remove("old");
  $(id).replaceChildren(...rows, own);
}

function showTimes(times) {
  bars("times", times.baseline, times.this, (value) => `${value.toPrecision(3)} ms`);
  const { flops, baseline_flops } = shown.answer;
  const slower = flops < baseline_flops && times.this > times.baseline;
  $("note").hidden = !slower;
  if (slower) {
    $("note").textContent =
      "Fewer FLOPs, yet no faster by the clock: on maps of this size, looking for the " +
      "positions that go on costs as much as leaving out the others saves. Larger " +
      "networks and images are where it pays.";
  }
}

const percent = (share) => `${(100 * share).toFixed(1)} %`;

function flopsText(value) {
  for (const [unit, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"]]) {
    if (value >= unit) return `${(value / unit).toPrecision(3)} ${name}`;
  }
  return String(value);
}

// --- The picture ----------------------------------------------------------------------

function draw() {
  const { image, answer } = shown;
  if (!answer) return;
  const canvas = $("canvas");
  const scale = Math.max(1, LEAST_SIDE / Math.max(image.naturalWidth, image.naturalHeight));
  const [width, height] = [image.naturalWidth, image.naturalHeight].map((side) => Math.round(side * scale));
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = scale < 2;
  const opacity = Number($("opacity").value);
  // Grey below the map: all colour is the map's, and the legend's.
  context.filter = `grayscale(${Math.min(1, 2 * opacity)})`;
  context.drawImage(image, 0, 0, width, height);
  context.filter = "none";
  const map = chosenMap();
  const [ymin, xmin, ymax, xmax] = answer.region;
  const place = [xmin * width, ymin * height, (xmax - xmin) * width, (ymax - ymin) * height];
  context.imageSmoothingEnabled = false;
  context.globalAlpha = opacity;
  context.drawImage(coloured(map), ...place);
  context.globalAlpha = 1;
  for (const box of answer.boxes || []) drawBox(context, box, width, height);
  $("low").textContent = map.low.toFixed(1);
  $("high").textContent = highest(map).toFixed(1);
}

function chosenMap() {
  const name = $("which").value;
  return shown.answer.maps.find((map) => map.name === name) || shown.answer.maps[0];
}

function highest(map) {
  return Math.max(shown.highest[map.name], map.low + 1e-3);
}

function coloured(map) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [map.width, map.height];
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(map.width, map.height);
  const range = highest(map) - map.low;
  map.values.forEach((value, index) => {
    const level = Math.round((255 * (value - map.low)) / range);
    const colour = about.colours[Math.min(Math.max(level, 0), 255)];
    pixels.data.set([...colour, 255], 4 * index);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}

const BOX_COLOURS = ["#e6550d", "#d62785", "#17becf", "#f2c80f", "#7fbf3f", "#b07cff", "#ff8b8b", "#ffffff"];

function drawBox(context, { name, score, number, box }, width, height) {
  const [ymin, xmin, ymax, xmax] = box;
  const [x, y] = [xmin * width, ymin * height];
  // As large on the screen, whatever the image is.
  const unit = width / (context.canvas.clientWidth || width);
  const colour = BOX_COLOURS[number % BOX_COLOURS.length];
  context.lineWidth = 2.5 * unit;
  context.strokeStyle = colour;
  context.strokeRect(x, y, (xmax - xmin) * width, (ymax - ymin) * height);
  context.font = `${13 * unit}px system-ui, sans-serif`;
  const text = `${name} ${score.toFixed(2)}`;
  const textWidth = context.measureText(text).width + 8 * unit;
  const left = Math.max(0, Math.min(x, width - textWidth));
  const top = Math.max(0, y - 18 * unit);
  context.fillStyle = colour;
  context.fillRect(left, top, textWidth, 18 * unit);
  context.fillStyle = "#000";
  context.fillText(text, left + 4 * unit, top + 13.5 * unit);
}

function drawBar() {
  const context = $("bar").getContext("2d");
  const pixels = context.createImageData(256, 1);
  about.colours.forEach((colour, index) => pixels.data.set([...colour, 255], 4 * index));
  context.putImageData(pixels, 0, 0);
}

function pointAt(event) {
  if (!shown.answer) return;
  const area = $("canvas").getBoundingClientRect();
  const [ymin, xmin, ymax, xmax] = shown.answer.region;
  const x = ((event.clientX - area.left) / area.width - xmin) / (xmax - xmin);
  const y = ((event.clientY - area.top) / area.height - ymin) / (ymax - ymin);
  const map = chosenMap();
  const inside = x >= 0 && x < 1 && y >= 0 && y < 1;
  const index = Math.floor(y * map.height) * map.width + Math.floor(x * map.width);
  $("here").textContent = inside ? ` – here ${map.values[index].toFixed(2)}` : "";
}

// --- Beginning ------------------------------------------------------------------------

function listen() {
  $("file").addEventListener("change", async (event) => {
    const [file] = event.target.files;
    event.target.value = ""; // The same file again is a change, too.
    if (file) await open(file, file.name);
  });
  $("camera").addEventListener("click", () => ($("video").srcObject ? stopCamera() : startCamera()));
  $("take").addEventListener("click", takePicture);
  $("bias").addEventListener("input", biasMoved);
  $("reset").addEventListener("click", () => {
    $("bias").value = 0;
    biasMoved();
  });
  $("which").addEventListener("change", draw);
  $("opacity").addEventListener("input", draw);
  $("canvas").addEventListener("pointermove", pointAt);
  $("canvas").addEventListener("pointerleave", () => ($("here").textContent = ""));
  window.addEventListener("resize", draw);
  const stage = $("stage");
  stage.addEventListener("dragover", (event) => {
    event.preventDefault();
    stage.classList.add("dropping");
  });
  stage.addEventListener("dragleave", () => stage.classList.remove("dropping"));
  stage.addEventListener("drop", (event) => {
    event.preventDefault();
    stage.classList.remove("dropping");
    const [file] = event.dataTransfer.files;
    if (file) open(file, file.name);
  });
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (file) open(file, file.name);
  });
}

async function begin() {
  about = await request("about");
  $("title").textContent = about.title;
  document.title = `sact-tf live: ${about.title}`;
  $("clocked").textContent = `Median of at least three turns, warmed up: ${about.clocked}.`;
  Object.assign($("bias"), { min: about.biases.least, max: about.biases.most, step: about.biases.step, value: 0 });
  show({ control: about.halts, plain: !about.halts });
  drawBar();
  $("examples").replaceChildren(...about.examples.map((name) => {
    const button = document.createElement("button");
    const image = document.createElement("img");
    Object.assign(button, { type: "button", title: name });
    Object.assign(image, { src: `thumbnails/${encodeURIComponent(name)}`, alt: name });
    button.append(image);
    button.addEventListener("click", () => openExample(name));
    return button;
  }));
  listen();
  document.body.dataset.state = "idle";
  if (about.examples.length) await openExample(about.examples[0]);
}

begin().catch((error) => say(error.message));
