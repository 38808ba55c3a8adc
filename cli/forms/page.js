// Replays what is embedded in the page. Everything of the recording becomes text nodes, never markup.
"use strict";
(function () {
  const SHOWN = 400; // blocks in the document at once: a browser lays out no hundred thousand
  const MARKS = 200;
  const STYLES = ["plain", "strong", "faint", "bad", "good", "doubtful", "request", "response"];
  const ARROWS = { "-1": "·", 0: "→", 1: "←" };
  const TICK_MS = 50;
  const PAUSE_MS = 5000; // nobody wants to wait as long as the session slept
  const [AT, CLOCK, DIRECTION, ORDINAL, MARK, LINES] = [0, 1, 2, 3, 4, 5];

  const element = (id) => document.getElementById(id);
  const recording = JSON.parse(element("recording").textContent);
  let session = null;
  let now = 0; // ms since the session's start
  let timer = null;
  let drawn = "";

  function made(tag, style, text) {
    const given = document.createElement(tag);
    given.className = style;
    if (text !== undefined) given.textContent = text;
    return given;
  }

  function linesOf(lines) {
    const pre = made("pre", "");
    lines.forEach((spans, number) => {
      if (number) pre.appendChild(made("span", "plain", "\n"));
      for (const [text, style] of spans) pre.appendChild(made("span", STYLES[style] || "plain", text));
    });
    return pre;
  }

  // How many blocks have begun by a time; blocks are in the order of time.
  function begunBy(time) {
    let low = 0;
    let high = session.blocks.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (session.blocks[middle][AT] <= time) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  function draw() {
    const begun = begunBy(now);
    const total = session.blocks.length;
    const first = Math.max(0, Math.min(begun - SHOWN / 2, total - SHOWN));
    const key = session.number + ":" + first + ":" + begun;
    element("now").textContent = (now / 1000).toFixed(3) + " s of " + (session.length / 1000).toFixed(3) + " s, " + begun + " of " + total;
    element("slider").value = String(now);
    if (key === drawn) return;
    drawn = key;
    const list = element("blocks");
    list.replaceChildren();
    if (first) list.appendChild(made("p", "faint", "… " + first + " before"));
    for (let number = first; number < Math.min(total, first + SHOWN); number++) {
      const block = session.blocks[number];
      const row = made("div", "block" + (number < begun ? "" : " later"));
      row.appendChild(made("span", "time", block[CLOCK] + " " + (ARROWS[block[DIRECTION]] || "·")));
      if (block[ORDINAL] >= 0) row.appendChild(made("span", "faint", "#" + block[ORDINAL]));
      row.appendChild(linesOf(block[LINES]));
      list.appendChild(row);
    }
    if (total > first + SHOWN) list.appendChild(made("p", "faint", "… " + (total - first - SHOWN) + " after"));
    if (session.more) list.appendChild(made("p", "bad", session.more));
  }

  function goTo(time) {
    now = Math.max(0, Math.min(time, session.length));
    draw();
  }

  function stop() {
    if (timer !== null) clearInterval(timer);
    timer = null;
    element("play").textContent = "play";
  }

  function tick() {
    const next = session.blocks[begunBy(now)];
    if (next === undefined) {
      stop();
      goTo(session.length);
      return;
    }
    const step = TICK_MS * Number(element("speed").value);
    goTo(next[AT] - now > PAUSE_MS ? next[AT] - PAUSE_MS : now + step);
  }

  function choose(number) {
    stop();
    session = recording.sessions[number];
    session.number = number;
    const last = session.blocks[session.blocks.length - 1];
    session.length = last === undefined ? 0 : last[AT];
    element("head").replaceChildren(linesOf(session.head));
    element("verdict").replaceChildren(linesOf(session.verdict));
    element("slider").max = String(session.length);
    const marks = element("marks");
    marks.replaceChildren();
    let shown = 0;
    for (const block of session.blocks) {
      if (!block[MARK] || shown++ >= MARKS) continue;
      const button = made("button", "", block[CLOCK] + " " + block[LINES][0].map((span) => span[0]).join(""));
      button.addEventListener("click", () => goTo(block[AT]));
      marks.appendChild(button);
    }
    if (shown > MARKS) marks.appendChild(made("p", "faint", "… " + (shown - MARKS) + " more"));
    drawn = "";
    goTo(0);
  }

  element("play").addEventListener("click", () => {
    if (timer !== null) return stop();
    if (now >= session.length) goTo(0);
    element("play").textContent = "stop";
    timer = setInterval(tick, TICK_MS);
    return undefined;
  });
  element("end").addEventListener("click", () => { stop(); goTo(session.length); });
  element("slider").addEventListener("input", () => { stop(); goTo(Number(element("slider").value)); });
  const chooser = element("session");
  recording.sessions.forEach((one, number) => {
    const option = made("option", "", one.name);
    option.value = String(number);
    chooser.appendChild(option);
  });
  chooser.hidden = recording.sessions.length < 2;
  chooser.addEventListener("change", () => choose(Number(chooser.value)));
  if (recording.sessions.length) choose(0);
})();
