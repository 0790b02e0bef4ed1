// The status page's own script. It polls /v1/overview once a second and makes rates of what grew. Names come from the configuration and are put on the page as text only.
"use strict";

const PERIOD = 1000, ANSWER_MAX = 5000, WINDOW = 120000, ROWS_MAX = 300, LINES_MAX = 16, TOKEN = "sealane.token";
const access = document.documentElement.dataset.access;
const $ = id => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const few = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

let token = null, before = null, shown = null, answeredAt = null, history = [], cut = false, timer = 0, saidUntil = 0;
try { token = sessionStorage.getItem(TOKEN); } catch { /* A browser that keeps nothing asks again after a reload. */ }

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) name.startsWith("on") ? node.addEventListener(name.slice(2), value) : node.setAttribute(name, value);
  node.append(...children);
  return node;
}
function draw(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}
// Only what is new is written, so that a screen reader is told of nothing else and no selection is lost.
function text(node, value) { if (node.textContent !== value) node.textContent = value; }
function look(node, name) { if (node.className !== name) node.className = name; }
function show(node, on) { if (node.hidden === on) node.hidden = !on; }

const count = n => n < 10000 ? whole.format(n) : scaled(n, 1000, ["", "k", "M", "G", "T"]);
const bytes = n => scaled(n, 1000, ["B", "kB", "MB", "GB", "TB"]);
const rate = n => n > 0 && n < 10 ? few.format(n) : count(n);
const percent = part => `${part > 0 && part < 0.1 ? few.format(part * 100) : whole.format(part * 100)} %`;
function scaled(n, step, units) {
  let unit = 0;
  while (n >= step && unit < units.length - 1) { n /= step; unit += 1; }
  return `${n < 100 && unit ? few.format(n) : whole.format(n)} ${units[unit]}`.trim();
}
function span(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor(s % 3600 / 60)} min`;
  return `${Math.floor(s / 86400)} d`;
}
const since = (date, now) => (Date.parse(now) - Date.parse(date)) / 1000;
const sum = (all, of) => all.reduce((total, one) => total + of(one), 0);

// Counters by name of two answers, as what came in a second. An engine that has started anew, or lost a lane, has no rates yet.
function rates(now, then) {
  const seconds = then ? (now.uptime_milliseconds - then.uptime_milliseconds) / 1000 : 0;
  if (seconds <= 0) return null;
  const grew = (one, other, name) => other && one[name] >= other[name] ? (one[name] - other[name]) / seconds : 0;
  const lanes = now.lanes.map((lane, at) => {
    const was = then.lanes[at], busy = grew(lane, was, "busy_nanoseconds"), idle = grew(lane, was, "idle_nanoseconds");
    return {
      busy: busy + idle > 0 ? busy / (busy + idle) : 0,
      full: grew(lane, was, "handshakes_full"), resumed: grew(lane, was, "handshakes_resumed"),
      received: grew(lane, was, "bytes_received"), sent: grew(lane, was, "bytes_sent"), drops: grew(lane, was, "frames_dropped"),
    };
  });
  const servers = new Map(), were = byServer(then);
  for (const [name, server] of byServer(now)) {
    const was = were.get(name), answers = grew(server, was, "answers");
    servers.set(name, {
      successes: grew(server, was, "successes"), failures: grew(server, was, "failures"),
      wait: answers > 0 ? grew(server, was, "answer_microseconds") / answers : null,
    });
  }
  return { lanes, servers };
}
function byServer(overview) {
  return new Map(overview.pools.flatMap(pool => pool.servers.map(server => [JSON.stringify([pool.name, server.name]), server])));
}

// Plots. Each draws its lines over the last two minutes of the engine's own clock; a gap is a gap.
class Plot {
  constructor(id, title, unit, format, ceiling) {
    Object.assign(this, { title, unit, format, ceiling, lines: [], at: null });
    this.figure = $(id);
    this.caption = make("figcaption", {}, make("b", {}, title));
    this.svg = draw("svg", { viewBox: "0 0 300 100", preserveAspectRatio: "none", role: "img" });
    this.top = make("span", { class: "top" });
    this.svg.append(draw("path", { class: "grid", d: "M0 .5H300M0 50H300M0 99.5H300" }));
    this.cursor = draw("path", { class: "at" });
    this.right = make("span", {}, "now");
    this.figure.append(this.caption, make("div", { class: "plot" }, this.svg, this.top), make("div", { class: "ends" }, make("span", {}, "2 min ago"), this.right));
    this.svg.addEventListener("pointermove", event => {
      const box = this.svg.getBoundingClientRect();
      this.at = (event.clientX - box.left) / box.width;
      this.render();
    });
    this.svg.addEventListener("pointerleave", () => { this.at = null; this.render(); });
  }

  // Names of the lines, and what each is worth at a point of the history.
  set(lines) {
    if (lines.map(line => line.name).join() !== this.lines.map(line => line.name).join()) {
      for (const line of this.lines) { line.key.remove(); line.path.remove(); line.area.remove(); }
      this.lines = lines.map((line, at) => {
        const group = `k${at % 4}`, value = make("span");
        const key = make("span", { class: "key" }, make("i", { class: group }), `${line.name} `, value);
        const path = draw("path", { class: `curve ${group}` }), area = draw("path", { class: `area ${group}` });
        if (at < 4) this.caption.append(key);
        this.svg.append(area, path);
        return { ...line, key, value, path, area };
      });
      this.svg.append(this.cursor);
    }
    this.render();
  }

  render() {
    const last = history.at(-1);
    if (!last) return;
    const x = point => 300 * (1 - (last.at - point.at) / WINDOW);
    const most = this.ceiling ?? nice(Math.max(0, ...history.flatMap(point => point.gap ? [] : this.lines.map(line => line.of(point)))));
    const y = value => 99.5 - 99 * Math.min(1, value / most);
    text(this.top, `${this.format(most)}${this.unit}`);
    const chosen = this.at === null ? last : history.reduce((best, point) => Math.abs(x(point) / 300 - this.at) < Math.abs(x(best) / 300 - this.at) ? point : best);
    for (const line of this.lines) {
      let path = "", area = "", from = null, x1 = 0;
      const close = () => { if (from !== null) area += `L${x1} 99.5L${from} 99.5Z`; from = null; };
      for (const point of history) {
        if (point.gap) { close(); continue; }
        x1 = x(point).toFixed(1);
        const step = `${from === null ? "M" : "L"}${x1} ${y(line.of(point)).toFixed(1)}`;
        from ??= x1;
        path += step;
        area += step;
      }
      close();
      line.path.setAttribute("d", path);
      line.area.setAttribute("d", this.lines.length > 2 ? "" : area);
      text(line.value, chosen.gap ? "–" : this.format(line.of(chosen)));
    }
    this.cursor.setAttribute("d", this.at === null ? "" : `M${x(chosen).toFixed(1)} 0V100`);
    text(this.right, this.at === null ? "now" : `${span((last.at - chosen.at) / 1000)} ago`);
    this.svg.setAttribute("aria-label", `${this.title}: ${this.lines.map(line => `${line.name} ${line.value.textContent}`).join(", ")}`);
  }
}
// The next round number.
function nice(most) {
  if (most <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].find(step => step * power >= most) * power;
}
const plots = {
  handshakes: new Plot("plot-handshakes", "Handshakes/s", "/s", rate),
  connections: new Plot("plot-connections", "Connections", "", count),
  bytes: new Plot("plot-bytes", "Bytes/s", "/s", bytes),
  busy: new Plot("plot-busy", "Lanes busy", "", percent, 1),
};

function remember(now, grown) {
  const point = grown
    ? { at: now.uptime_milliseconds, lanes: grown.lanes, connections: now.engine.connections, full: sum(grown.lanes, lane => lane.full),
        resumed: sum(grown.lanes, lane => lane.resumed), received: sum(grown.lanes, lane => lane.received), sent: sum(grown.lanes, lane => lane.sent) }
    : { at: now.uptime_milliseconds, gap: true };
  if (history.length && history.at(-1).at >= point.at) history = [];
  if (cut) history.push({ at: point.at, gap: true });
  cut = false;
  history.push(point);
  history = history.filter(old => point.at - old.at <= WINDOW);
  plots.handshakes.set([{ name: "full", of: one => one.full }, { name: "resumed", of: one => one.resumed }]);
  plots.connections.set([{ name: "open", of: one => one.connections }]);
  plots.bytes.set([{ name: "to clients", of: one => one.sent }, { name: "from clients", of: one => one.received }]);
  plots.busy.set(now.lanes.slice(0, LINES_MAX).map((lane, at) => ({ name: `lane ${lane.lane}`, of: one => one.lanes[at]?.busy ?? 0 })));
}

// Tables. Rows are kept by name and changed in place, so that a button stays under the finger.
function rows(body, items, key, create, update) {
  body.kept ??= new Map();
  const kept = new Map();
  items.forEach((item, at) => {
    const name = key(item), row = body.kept.get(name) ?? create(item);
    body.kept.delete(name);
    kept.set(name, row);
    if (body.children[at] !== row) body.insertBefore(row, body.children[at] ?? null);
    update(row, item);
  });
  for (const row of body.kept.values()) row.remove();
  body.kept = kept;
}
function cells(row, names) { return Object.fromEntries(names.map((name, at) => [name, row.children[at]])); }
function meter(cell, part, label) {
  if (!cell.firstChild) {
    const bar = draw("rect", { height: 10, width: 0 });
    cell.append(make("div", { class: "meter" }, draw("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, bar), make("span")));
  }
  const [svg, span] = cell.firstChild.children;
  svg.firstChild.setAttribute("width", Math.round(100 * Math.min(1, Math.max(0, part))));
  text(span, label);
}

const MARKS = { up: "●", down: "✕", maintenance: "◆", unknown: "○", draining: "◐", disabled: "■", "taken out": "✕", full: "▲" };
function condition(server) {
  if (server.state !== "enabled") return [server.state, server.state === "draining" ? "warn" : ""];
  if (server.health !== "up" && server.health !== "unknown") return [server.health, server.health === "down" ? "bad" : "warn"];
  if (server.out) return ["taken out", "bad"];
  if (!server.usable) return ["full", "warn"];
  return [server.health, server.health === "up" ? "good" : ""];
}
const CHANGES = { enabled: ["Enable", "is enabled"], draining: ["Drain", "is draining"], disabled: ["Disable", "is disabled"] };

function serverRow({ pool, server }) {
  const button = state => make("button", { type: "button", class: "do", "data-state": state, onclick: event => change(pool.name, server.name, state, event.currentTarget),
    "aria-label": `${CHANGES[state][0]} server ${server.name} of pool ${pool.name}` }, CHANGES[state][0]);
  return make("tr", {},
    make("td", {}, make("b", {}, server.name), make("span", { class: "quiet mono" }), make("span", { class: "wrong" })),
    make("td", {}, make("span", { class: "badge" }), make("span", { class: "quiet" })),
    make("td", { class: "n", "data-label": "Connections" }), make("td", { class: "n", "data-label": "Answers/s" }), make("td", { class: "n", "data-label": "First byte" }),
    make("td", { class: "n", "data-label": "Failed" }), make("td", { "data-label": "Share" }),
    make("td", { class: "acts" }, ...Object.keys(CHANGES).map(button)));
}
function serverCells(row, { server, now, grown, part }) {
  const at = cells(row, ["name", "status", "connections", "answers", "wait", "failed", "share", "acts"]);
  const [word, tone] = condition(server);
  text(at.name.children[1], server.address);
  text(at.name.children[2], server.findings.filter(one => one.cause).map(one => `${one.monitor}: ${one.cause}`).join(", "));
  text(at.status.children[0], `${MARKS[word] ?? "○"} ${word}`);
  look(at.status.children[0], `badge ${tone}`);
  const beside = server.state === "enabled" ? "" : `${server.health}, `;
  text(at.status.children[1], server.since ? `${beside}for ${span(since(server.since, now.time))}` : beside.replace(", ", ""));
  const most = server.connections_max === undefined ? "" : ` of ${count(server.connections_max)}`, wait = server.waiting ? ` + ${count(server.waiting)} waiting` : "";
  text(at.connections, `${count(server.connections)}${most}${wait}`);
  text(at.answers, grown ? rate(grown.successes) : "–");
  text(at.wait, grown?.wait == null ? "–" : grown.wait < 10000 ? `${few.format(grown.wait / 1000)} ms` : `${whole.format(grown.wait / 1000)} ms`);
  text(at.failed, count(server.failures));
  look(at.failed, grown?.failures > 0 ? "n wrong" : "n");
  meter(at.share, part ?? 0, part === null ? "–" : percent(part));
  for (const button of at.acts.children) show(button, button.dataset.state !== server.state);
}
// What part of new clients a server gets, as far as its ratio decides.
const weight = server => server.usable && !server.out ? server.ratio * server.share_percent : 0;

function poolRow() {
  return make("tbody", {}, make("tr", { class: "pool" }, make("th", { colspan: 8, scope: "rowgroup" }, make("b"), make("span", { class: "badge" }), make("span", { class: "quiet" }))));
}
function poolCells(body, { pool, servers, now, grown }) {
  const [name, badge, about] = body.firstChild.firstChild.children, all = pool.servers.length, weights = sum(pool.servers, weight);
  text(name, pool.name);
  text(badge, `${pool.servers_usable} of ${all} usable`);
  look(badge, `badge ${pool.servers_usable === 0 ? "bad" : pool.servers_usable < all ? "warn" : "good"}`);
  text(about, `${count(pool.connections)} connection${pool.connections === 1 ? "" : "s"} · ${pool.virtual_services.length ? `serves ${pool.virtual_services.join(", ")}` : "serves nobody"}`);
  const head = body.firstChild;
  body.kept ??= new Map();
  const kept = new Map();
  let last = head;
  for (const server of servers) {
    const row = body.kept.get(server.name) ?? serverRow({ pool, server });
    body.kept.delete(server.name);
    kept.set(server.name, row);
    if (last.nextSibling !== row) last.after(row);
    last = row;
    const part = weights > 0 ? weight(server) / weights : null;
    serverCells(row, { server, now, part, grown: grown?.servers.get(JSON.stringify([pool.name, server.name])) });
  }
  for (const row of body.kept.values()) row.remove();
  body.kept = kept;
}
function poolTables(now, grown) {
  const total = sum(now.pools, pool => pool.servers.length), wanted = $("filter").value.trim().toLowerCase();
  show($("find"), total > 12 || wanted !== "");
  let room = ROWS_MAX, left = 0;
  const chosen = [];
  for (const pool of now.pools) {
    const fits = server => `${pool.name}/${server.name} ${server.address} ${condition(server)[0]}`.toLowerCase().includes(wanted);
    const found = pool.servers.filter(fits), servers = found.slice(0, Math.max(0, room));
    left += found.length - servers.length;
    if (room > 0 && (servers.length || (!wanted && !pool.servers.length))) chosen.push({ pool, servers, now, grown });
    room -= servers.length + 1;
  }
  const table = document.querySelector(".servers");
  table.pools ??= new Map();
  const kept = new Map();
  let last = table.tHead;
  for (const one of chosen) {
    const body = table.pools.get(one.pool.name) ?? poolRow();
    table.pools.delete(one.pool.name);
    kept.set(one.pool.name, body);
    if (last.nextElementSibling !== body) last.after(body);
    last = body;
    poolCells(body, one);
  }
  for (const body of table.pools.values()) body.remove();
  table.pools = kept;
  show($("more"), left > 0 || (wanted !== "" && !chosen.length));
  text($("more"), left ? `${count(left)} more servers: find them by name, address or status` : "No server is like that");
}

function laneTable(now, grown) {
  const row = () => make("tr", {}, make("td", {}, make("b"), make("span", { class: "quiet" })), make("td"), make("td", { class: "n" }), make("td", { class: "n" }), make("td", { class: "n" }));
  rows($("lanes"), now.lanes, lane => lane.lane, row, (row, lane) => {
    const at = cells(row, ["lane", "busy", "handshakes", "connections", "drops"]), own = grown?.lanes[now.lanes.indexOf(lane)];
    text(at.lane.children[0], String(lane.lane));
    const late = lane.configuration_version < now.engine.configuration_version ? `, configuration ${lane.configuration_version}` : "";
    text(at.lane.children[1], `core ${lane.core}${late}`);
    meter(at.busy, own?.busy ?? 0, own ? percent(own.busy) : "–");
    text(at.handshakes, own ? rate(own.full + own.resumed) : "–");
    text(at.connections, count(lane.connections));
    text(at.drops, count(lane.frames_dropped));
    look(at.drops, own?.drops > 0 ? "n wrong" : "n");
  });
}
function serviceTable(now) {
  const row = () => make("tr", {}, make("td", {}, make("b"), make("span", { class: "quiet mono" })), make("td", {}, make("span"), make("span", { class: "quiet" })), make("td", { class: "n" }, make("span"), make("span", { class: "quiet" })));
  const some = now.virtual_services.slice(0, ROWS_MAX), left = now.virtual_services.length - some.length;
  rows($("services"), some, service => service.name, row, (row, service) => {
    const at = cells(row, ["name", "pool", "certificate"]);
    text(at.name.children[0], service.name);
    text(at.name.children[1], service.addresses.join(" "));
    text(at.pool.children[0], service.pool);
    text(at.pool.children[1], service.servers_usable === 0 ? "no usable server" : `${service.servers_usable} usable`);
    look(at.pool.children[1], service.servers_usable === 0 ? "wrong" : "quiet");
    const ends = service.certificates.map(one => -since(one.not_after, now.time)), first = Math.min(...ends);
    text(at.certificate.children[0], ends.length ? first <= 0 ? "expired" : `${span(first)} left` : "–");
    look(at.certificate.children[0], first < 14 * 86400 ? "wrong" : "");
    text(at.certificate.children[1], ends.length > 1 ? `first of ${ends.length}` : "");
  });
  show($("more-services"), left > 0);
  text($("more-services"), `${count(left)} more`);
}
function keyTable(now) {
  const ring = now.ticket_keys, tones = { active: "good", pending: "", retiring: "warn" };
  text($("ring"), `ring ${ring.version}, source ${ring.source}, ${ring.in_force ? "on all lanes" : "not on every lane yet"}`);
  const row = () => make("tr", {}, make("td", { class: "mono" }), make("td", {}, make("span", { class: "badge" })), make("td", { class: "n" }));
  rows($("keys"), ring.keys, key => key.id, row, (row, key) => {
    const at = cells(row, ["id", "state", "age"]);
    text(at.id, key.id);
    text(at.state.children[0], key.state);
    look(at.state.children[0], `badge ${tones[key.state] ?? ""}`);
    text(at.age, span(since(key.since, now.time)));
  });
  show($("alarms"), ring.alarms.length > 0);
  text($("alarms"), `Ticket keys: ${ring.alarms.join(", ")}`);
}

function heading(now) {
  const engine = now.engine, title = $("engine");
  if (!title.querySelector("small")) title.replaceChildren(make("span"), " ", make("small"));
  text(title.children[0], engine.engine);
  text(title.children[1], engine.cluster);
  document.title = `${engine.engine} · Sealane`;
  text($("fit"), engine.draining ? "◐ draining" : engine.unfit ? `✕ not ready: ${engine.unfit}` : "● ready");
  look($("fit"), `badge ${engine.draining ? "warn" : engine.unfit ? "bad" : "good"}`);
  const facts = [
    ["up", span(now.uptime_milliseconds / 1000)], ["version", engine.version],
    ["configuration", `${engine.configuration_version}${engine.unsaved_changes ? ", not saved" : ""}`], ["connections", count(engine.connections)],
    ["clients served", count(sum(now.lanes, lane => lane.accepted))], ["file", engine.file],
  ];
  rows($("facts"), facts, fact => fact[0], fact => make("div", {}, make("dt", {}, fact[0]), make("dd")), (row, fact) => text(row.lastChild, fact[1]));
}

function render() {
  if (!shown) return;
  const { now, grown } = shown;
  heading(now);
  poolTables(now, grown);
  laneTable(now, grown);
  serviceTable(now);
  keyTable(now);
  const may = access !== "read";
  document.body.classList.toggle("may", may);
  show($("drain"), may);
  text($("drain"), now.engine.draining ? "Stop engine now" : "Drain engine");
  show($("save"), may && now.engine.unsaved_changes);
  show($("forget"), may && token !== null);
  text($("mode"), may ? "" : "read-only");
  show($("facts"), true);
  show($("main"), true);
  show($("access"), false);
}

// Asking.
function ask(method, path, body) {
  const headers = {};
  if (token !== null) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  return fetch(path, { method, headers, body: body && JSON.stringify(body), cache: "no-store", credentials: "same-origin", signal: AbortSignal.timeout(ANSWER_MAX) });
}
async function poll() {
  clearTimeout(timer);
  try {
    const answer = await ask("GET", "v1/overview");
    if (answer.status === 401) return closed("The engine does not accept this token.");
    if (!answer.ok) throw new Error(`the engine answers ${answer.status}`);
    const now = await answer.json(), grown = rates(now, before);
    before = now;
    shown = { now, grown };
    answeredAt = Date.now();
    try { if (token !== null) sessionStorage.setItem(TOKEN, token); } catch { /* It is asked for again after a reload. */ }
    remember(now, grown);
    render();
    lost(null);
  } catch (error) {
    cut = true;
    lost(error);
  }
  if (Date.now() > saidUntil) show($("said"), false);
  timer = setTimeout(poll, PERIOD);
}
function lost(error) {
  document.body.classList.toggle("stale", error !== null);
  show($("lost"), error !== null);
  if (error === null) return;
  const ago = answeredAt ? ` for ${span((Date.now() - answeredAt) / 1000)}; what you see is from then` : "";
  text($("lost"), `The engine has not answered${ago}. This page goes on asking.`);
}
// Nothing is left on the page of an API that does not know who looks.
function closed(why) {
  clearTimeout(timer);
  token = before = shown = answeredAt = null;
  history = [];
  try { sessionStorage.removeItem(TOKEN); } catch { /* It was not kept. */ }
  for (const id of ["main", "facts", "drain", "save", "forget", "lost", "alarms", "said"]) show($(id), false);
  document.body.classList.remove("may", "stale");
  $("engine").replaceChildren("Sealane");
  text($("fit"), "");
  text($("refused"), why);
  show($("access"), true);
  $("token").focus();
}

// Changing.
function say(words, tone) {
  text($("said"), words);
  look($("said"), `notice ${tone}`);
  show($("said"), true);
  saidUntil = Date.now() + (tone === "bad" ? 30000 : 8000);
}
function sure(what, why, yes) {
  text($("sure-what"), what);
  text($("sure-why"), why);
  text($("sure-yes"), yes);
  const dialog = $("sure");
  return new Promise(resolve => {
    const settle = is => { resolve(is); dialog.close(); };
    $("sure-yes").onclick = () => settle(true);
    $("sure-no").onclick = () => settle(false);
    dialog.onclose = () => resolve(false);
    dialog.showModal();
  });
}
async function told(button, method, path, body, done) {
  button.disabled = true;
  try {
    const answer = await ask(method, path, body), said = await answer.json();
    if (answer.status === 401) return closed("The engine does not accept this token.");
    if (!answer.ok) return say([said.detail, ...(said.faults ?? []).map(one => `${one.key}: ${one.wrong}; ${one.remedy}`)].join(" "), "bad");
    say(done(said), said.in_force === false ? "warn" : "good");
    await poll();
  } catch {
    say("The engine has not answered: whether it has done this, the page will show.", "bad");
  } finally {
    button.disabled = false;
  }
}
async function change(pool, server, state, button) {
  const kept = "Not saved: a reload takes it back.";
  if (state === "disabled" && !await sure(`Disable ${pool}/${server}?`, "Its open connections are reset at once, and nobody comes to it.", "Disable")) return;
  const path = `v1/pools/${encodeURIComponent(pool)}/servers/${encodeURIComponent(server)}`;
  await told(button, "PATCH", path, { state }, said => `${pool}/${server} ${CHANGES[state][1]}, ${said.in_force ? "on all lanes" : "but not on every lane yet"}. ${kept}`);
}
$("drain").addEventListener("click", async event => {
  const button = event.currentTarget, twice = shown?.now.engine.draining, name = shown?.now.engine.engine;
  const why = twice ? "What is open is reset, and the engine stops." : "It tells /healthz at once, lets connections end, and stops. It does not come back by itself.";
  if (await sure(twice ? `Stop ${name} now?` : `Drain ${name}?`, why, twice ? "Stop" : "Drain")) await told(button, "POST", "v1/drain", null, () => twice ? "The engine stops." : "The engine is draining.");
});
$("save").addEventListener("click", event => told(event.currentTarget, "POST", "v1/configuration/save", null, () => "Saved to the engine's file."));
$("forget").addEventListener("click", () => closed(""));
$("filter").addEventListener("input", render);
$("access").addEventListener("submit", event => {
  event.preventDefault();
  const typed = $("token").value.trim();
  $("token").value = "";
  // A header holds nothing else, and so no token does.
  if (!/^[!-~]+$/.test(typed)) return closed("A token has letters, digits and signs only.");
  token = typed;
  text($("refused"), "");
  poll();
});

if (access === "token" && token === null) closed(""); else poll();
