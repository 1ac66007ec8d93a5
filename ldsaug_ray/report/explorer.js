"use strict";
// What other settings of `select` would keep. The rule is that of ldsaug_ray/selection: threshold.py, balance.py, best.py.
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("explorer-data").textContent);
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const floats = (text) => new Float32Array(bytes(text));
  const n = floats(data.sigmas[0].log_lds).length;
  const whole = (text, found = bytes(text)) => new { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array }[found.byteLength / n](found);
  const alphaOf = whole(data.alpha);
  const at = data.sigmas.map((s) => ({
    sigma: s.sigma,
    log_lds: floats(s.log_lds),
    log_lds_excluding_parents: floats(s.log_lds_excluding_parents),
    share: floats(s.parent_share),
    neighbours: floats(s.effective_neighbours),
    orders: {},
  }));
  const groups = { none: new Uint32Array(n) };
  for (const name in data.groups) groups[name] = whole(data.groups[name]);
  const labels = data.labels.map((label) => ({ ...label, of: whole(label.of) }));
  const ascending = data.alphas.map((_, k) => k).sort((a, b) => data.alphas[a] - data.alphas[b]);
  const steps = 1000; // of the sliders of share and tau

  // splitmix64's finaliser, as `id_hash`: who gets what is left over among equal remainders
  const hash = (id) => {
    let x = BigInt.asUintN(64, id + 0x9e3779b97f4a7c15n);
    x = BigInt.asUintN(64, (x ^ (x >> 30n)) * 0xbf58476d1ce4e5b9n);
    x = BigInt.asUintN(64, (x ^ (x >> 27n)) * 0x94d049bb133111ebn);
    return x ^ (x >> 31n);
  };
  const shift = hash(BigInt(data.seed));
  const rank = (cell) => hash(BigInt.asUintN(64, BigInt(cell) + shift));

  const atLeastOne = (share, size) => Math.min(size, Math.max(1, Math.floor(share * size + 0.5)));

  // Places of each cell: in proportion, by largest remainders
  const proportional = (sizes, total, all) => {
    const quotas = new Map(), rests = [];
    let over = total;
    for (const [cell, size] of sizes) {
      const quota = Math.floor((size * total) / all), rest = (size * total) % all;
      quotas.set(cell, quota);
      over -= quota;
      if (rest) rests.push({ cell, rest });
    }
    if (over) {
      for (const r of rests) r.rank = rank(r.cell);
      rests.sort((a, b) => b.rest - a.rest || (a.rank < b.rank ? -1 : 1));
      for (const r of rests.slice(0, over)) quotas.set(r.cell, quotas.get(r.cell) + 1);
    }
    return quotas;
  };

  // Rows that are kept, the densest first, and how many there are of these alphas
  const select = (s) => {
    const bandwidth = at[s.sigma], column = s.exclude ? "log_lds_excluding_parents" : "log_lds", score = bandwidth[column];
    const order = (bandwidth.orders[column] ??= Uint32Array.from(score.keys()).sort((a, b) => score[b] - score[a] || a - b));
    const stratum = new Int32Array(data.alphas.length).fill(-1);
    const chosen = new Set(ascending.slice(s.low, s.high + 1));
    let strata = 0;
    data.alphas.forEach((_, k) => { if (chosen.has(k)) stratum[k] = strata++; });
    const within = order.filter((row) => stratum[alphaOf[row]] >= 0);
    if (s.by === "tau") {
      const least = Math.log(s.tau);
      return { rows: within.filter((row) => score[row] > least), candidates: within.length, score };
    }
    const of = groups[s.balance];
    if (!s.stratify) strata = 1;
    const cell = (row) => of[row] * strata + (s.stratify ? stratum[alphaOf[row]] : 0);
    const sizes = new Map();
    for (const row of within) sizes.set(cell(row), (sizes.get(cell(row)) || 0) + 1);
    let left = new Map();
    if (s.balance === "none") for (const [c, size] of sizes) left.set(c, atLeastOne(s.share, size));
    else left = proportional(sizes, atLeastOne(s.share, within.length), within.length);
    const rows = within.filter((row) => {
      const c = cell(row), places = left.get(c);
      left.set(c, places - 1);
      return places > 0;
    });
    return { rows, candidates: within.length, score };
  };

  const median = (values) => {
    const sorted = values.sort(), half = sorted.length >> 1; // typed arrays sort by number
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  };
  const effective = (shares) => Math.exp(-shares.reduce((sum, p) => sum + (p > 0 ? p * Math.log(p) : 0), 0));
  const count = (x) => Math.round(x).toLocaleString("en-US");
  const percent = (x) => `${+(100 * x).toPrecision(3)}%`;

  const state = {
    by: data.select.tau > 0 && data.select.top_fraction === null && data.select.top_count === null ? "tau" : "share",
    share: data.select.top_fraction ?? (data.kept || 0.2), tau: data.select.tau > 0 ? data.select.tau : 0.28,
    balance: data.select.balance in groups ? data.select.balance : "none",
    stratify: data.select.stratify, exclude: data.select.exclude_parents,
    low: 0, high: ascending.length - 1, sigma: data.own,
  };
  let span = [0, 0]; // of log LDS: the slider of tau

  const pasted = (s, candidates) => {
    const wanted = {
      which: "lds", rank: "lds", typical: null, top_count: null, exclude_parents: s.exclude,
      tau: s.by === "tau" ? s.tau : null, top_fraction: s.by === "tau" ? null : s.share,
      stratify: s.by !== "tau" && s.stratify, balance: s.by === "tau" ? "none" : s.balance,
    };
    const lines = [];
    for (const [key, own] of Object.entries(data.select))
      if (wanted[key] !== own || wanted[key] !== data.defaults[key]) lines.push(["select", key, wanted[key]]);
    if (s.low > 0 || s.high < ascending.length - 1) {
      const chosen = ascending.slice(s.low, s.high + 1).sort((a, b) => a - b).map((k) => data.alphas[k]);
      lines.push(["score", "alphas", chosen], ["score", "n_candidates", Math.round((candidates / n) * data.total)]);
    }
    if (s.sigma !== data.own) {
      const sigma = { rule: "fixed", value: at[s.sigma].sigma };
      for (const key of ["scale", "share"]) if (data.sigma[key] !== null) sigma[key] = null;
      lines.push(["score", "sigma", sigma]);
    }
    const text = (v) => (typeof v === "object" ? JSON.stringify(v).replace(/"/g, "").replace(/([:,])/g, "$1 ")
      : typeof v === "number" ? String(v).replace(/^(\d+)e/, "$1.0e") : String(v)); // YAML 1.1 takes 1e-5 for text
    const yaml = ["score", "select"].flatMap((section) => {
      const own = lines.filter((line) => line[0] === section);
      return own.length ? [`${section}:`, ...own.map(([, key, value]) => `  ${key}: ${text(value)}`)] : [];
    });
    const words = lines.flatMap(([section, key, value]) => (key === "sigma"
      ? Object.entries(value).map(([k, v]) => `${section}.${key}.${k}=${text(v)}`)
      : [`'${section}.${key}=${text(value)}'`]));
    return { yaml: yaml.join("\n") || "# as this run", command: ["ldsaug run config.yaml", ...words].join(" ") };
  };

  const bars = (list, rows) => { // [name, share, of all]
    list.replaceChildren(...rows.map(([name, share, before]) => {
      const item = document.createElement("li"), bar = document.createElement("span"), text = document.createElement("span");
      text.textContent = `${name}: ${percent(share)} (${percent(before)})`;
      bar.className = "bar";
      bar.style.width = `${100 * share}%`;
      item.append(text, bar);
      return item;
    }));
  };
  const shares = (of, size, rows) => {
    const counts = new Array(size).fill(0);
    for (const row of rows) counts[of[row]]++;
    return counts;
  };

  const draw = () => {
    const s = state, { rows, candidates, score } = select(s), bandwidth = at[s.sigma];
    const least = Math.max(-690, score.reduce((a, b) => Math.min(a, b), 0)), most = score.reduce((a, b) => Math.max(a, b), -690);
    span = [least, most];
    for (const key of ["by", "balance"]) byId(`explorer-${key}`).value = s[key];
    for (const key of ["stratify", "exclude"]) byId(`explorer-${key}`).checked = s[key];
    for (const key of ["stratify", "balance"]) byId(`explorer-${key}`).disabled = s.by === "tau";
    for (const key of ["low", "high", "sigma"]) byId(`explorer-${key}`).value = s[key];
    byId("explorer-share").value = Math.round(steps * (1 + Math.log10(s.share) / 3));
    byId("explorer-tau").value = Math.round((steps * (Math.log(s.tau) - least)) / (most - least || 1));
    for (const key of ["share", "tau"]) byId(`explorer-${key}`).closest("label").hidden = s.by !== key;
    const said = {
      share: percent(s.share), tau: `LDS > ${s.tau}`, low: data.alphas[ascending[s.low]], high: data.alphas[ascending[s.high]],
      sigma: +bandwidth.sigma.toPrecision(4),
    };
    for (const key in said) {
      byId(`explorer-${key}-out`).textContent = said[key];
      byId(`explorer-${key}`).setAttribute("aria-valuetext", said[key]);
    }
    const scaled = data.total / n;
    const show = (id, text) => { byId(`explorer-${id}`).textContent = text; };
    show("kept", count(rows.length * scaled));
    show("of", `of ${count(candidates * scaled)}${n < data.total ? `; ${count(rows.length)} of the sample` : ""}`);
    const some = rows.length > 0, log = some ? score[rows[rows.length - 1]] : 0;
    show("least", some ? log.toFixed(3).replace("-", "−") : "–");
    show("parents", some ? percent(median(Float32Array.from(rows, (row) => bandwidth.share[row]))) : "–");
    show("neighbours", some ? count(median(Float32Array.from(rows, (row) => bandwidth.neighbours[row]))) : "–");
    const everyone = Uint32Array.from(alphaOf.keys());
    const ofAlpha = shares(alphaOf, data.alphas.length, rows), before = shares(alphaOf, data.alphas.length, everyone);
    bars(byId("explorer-alphas"), ascending.map((k) => [data.alphas[k], ofAlpha[k] / (rows.length || 1), before[k] / n]));
    labels.forEach((label, k) => {
      const counts = shares(label.of, label.values.length + 1, rows).slice(1), known = counts.reduce((a, b) => a + b, 0) || 1;
      const found = counts.map((c) => c / known);
      byId(`explorer-label-${k}`).textContent = some
        ? `${effective(found).toFixed(1)} effective values, of the training split’s ${effective(label.train).toFixed(1)}` : "none kept";
      bars(byId(`explorer-label-bars-${k}`), label.values.map((value, v) => [value, found[v], label.train[v]]));
    });
    const place = new Map();
    rows.forEach((row, k) => place.set(row, k));
    const list = byId("explorer-sheet"), pictures = [...list.children].sort((a, b) => a.dataset.k - b.dataset.k);
    const kept = data.shown.map((row, k) => ({ k, place: place.get(row) })).filter((x) => x.place !== undefined);
    kept.sort((a, b) => a.place - b.place);
    const most24 = Math.min(24, kept.length), picked = new Set();
    for (let m = 0; m < most24; m++) { // evenly over the places of all that are kept
      const target = ((m + 0.5) / most24) * rows.length;
      const free = kept.filter((x) => !picked.has(x));
      picked.add(free.reduce((a, b) => (Math.abs(b.place - target) < Math.abs(a.place - target) ? b : a)));
    }
    const first = kept.filter((x) => picked.has(x)).map((x) => pictures[x.k]);
    pictures.forEach((picture) => { picture.hidden = !first.includes(picture); });
    list.append(...first, ...pictures.filter((picture) => picture.hidden));
    show("pictures", `${first.length} of what is kept, the densest first`);
    const { yaml, command } = pasted(s, candidates);
    show("yaml", yaml);
    show("command", command);
  };

  const read = () => { // #explore?share=0.1&balance=parent
    const [name, query] = location.hash.slice(1).split("?");
    if (name !== "explore" || !query) return;
    for (const [key, text] of new URLSearchParams(query)) {
      const number = Number(text);
      if (key === "by" && ["share", "tau"].includes(text)) state.by = text;
      if (key === "balance" && text in groups) state.balance = text;
      if (key === "stratify" || key === "exclude") state[key] = text === "true";
      if (key === "share" && number > 0 && number <= 1) state.share = number;
      if (key === "tau" && number > 0 && number < 1) state.tau = number;
      if (key === "sigma" && at[number]) state.sigma = number;
      if ((key === "low" || key === "high") && data.alphas[number] !== undefined) state[key] = number;
    }
    if (state.low > state.high) state.high = state.low;
  };
  const changed = (event) => {
    const key = event.target.id.replace("explorer-", ""), value = Number(event.target.value);
    if (event.target.type === "checkbox") state[key] = event.target.checked;
    else if (key === "share") state.share = +(10 ** (3 * (value / steps - 1))).toPrecision(2);
    else if (key === "tau") state.tau = Math.min(0.9999, +Math.exp(span[0] + (value / steps) * (span[1] - span[0])).toPrecision(4));
    else if (["low", "high", "sigma"].includes(key)) state[key] = value;
    else state[key] = event.target.value;
    if (key === "low") state.high = Math.max(state.high, value);
    if (key === "high") state.low = Math.min(state.low, value);
    requestAnimationFrame(draw);
  };
  byId("explorer-controls").addEventListener("input", changed);
  addEventListener("hashchange", () => { read(); draw(); });
  read();
  byId("explorer-live").hidden = false;
  draw();
})();
