/* Every figure and table to take along. */
const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60) || "figure";

const words = (text) => {
  const box = document.createElement("textarea"); // plotly's labels are escaped, files hold plain text
  box.innerHTML = String(text ?? "").replace(/<br\s*\/?>/g, " ").replace(/<[^>]*>/g, "");
  return box.value;
};

/* One row a point: the trace's name, its coordinates, and the values that its hover shows. */
function traceRows(trace) {
  if (trace.hoverinfo === "skip" && !trace.customdata) return [];
  const x = plain(trace.x) || [], y = plain(trace.y) || [], z = plain(trace.z), known = plain(trace.customdata);
  const columns = (trace.meta || {}).columns || [];
  const rows = [];
  const row = (place, values, raw) => {
    const one = { trace: words(trace.name), ...place };
    if (values === undefined) Object.assign(one, raw);
    else [].concat(values).forEach((v, i) => { one[columns[i] || "value_" + (i + 1)] = v; });
    rows.push(one);
  };
  if (z && Array.isArray(z[0])) {
    const turned = trace.type === "surface"; // plotly wants a surface's customdata as [column][row]
    z.forEach((line, i) => line.forEach((value, j) => row(
      { alpha: x[j], beta: y[i] }, known && (turned ? known[j] : known[i])?.[turned ? i : j], { value: value }
    )));
  } else {
    x.forEach((value, i) => row({ x: value }, known && known[i], z ? { y: y[i], z: z[i] } : { y: y[i] }));
  }
  return rows;
}

const figureRows = (figure) => figure.source.data.flatMap(traceRows);

function csv(rows) {
  const columns = [...new Set(rows.flatMap(Object.keys))];
  const quote = (v) => (v === null || v === undefined || Number.isNaN(v) ? "" : /[",\n]/.test(v) ? '"' + String(v).replace(/"/g, '""') + '"' : String(v));
  return [columns.join(","), ...rows.map((one) => columns.map((c) => quote(one[c])).join(","))].join("\n") + "\n";
}

function everything() {
  const told = JSON.parse(document.getElementById("page-data").textContent);
  told.figures = [...figures.values()].map((figure) => ({
    title: figure.frame.querySelector("figcaption b")?.textContent,
    settings: figure.frame.querySelector("figcaption span")?.textContent,
    rows: figureRows(figure),
  }));
  // Not a number has no place in JSON; a gap is null.
  return JSON.stringify(told, (_, v) => (typeof v === "number" && !Number.isFinite(v) ? null : v), 1);
}

function blobOf(url) {
  const comma = url.indexOf(","), kind = url.slice(5, comma);
  const text = url.slice(comma + 1);
  if (!/;base64/.test(kind)) return new Blob([decodeURIComponent(text)], { type: kind });
  return new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], { type: kind.split(";")[0] });
}

function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
