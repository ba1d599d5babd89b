// The map of the groups and the table with the same data.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 320;
const HEIGHT = 220;
const MARGIN = 32;
/** Requests that count as the latest. */
const NUM_LATEST = 5;
const MAX_RADIUS = 25;
/** Beyond this many groups, numbers inside of circles cover each other. */
const MAX_LABELS = 40;

export class Groups {
  constructor(map, rows) {
    this.map = map;
    this.rows = rows;
    this.layout = "";
    this.marks = new Map();
  }

  /** Draws the response of `/v1/clusters`; `lastCluster` is the group of the last answer on this page. */
  update(clusters, lastCluster) {
    this.place(clusters);
    const latest = latestOf(clusters);
    const most = Math.max(1, ...clusters.map((group) => group.num_requests));
    const largest = Math.max(0, ...clusters.map((group) => group.delta_norm ?? 0));
    for (const group of clusters) {
      const mark = this.marks.get(group.cluster);
      const share = Math.sqrt(group.num_requests / most);
      const radius = this.minRadius + (this.maxRadius - this.minRadius) * share;
      const ring = largest > 0 ? (group.delta_norm ?? 0) / largest : 0;
      mark.circle.setAttribute("r", radius.toFixed(1));
      mark.circle.setAttribute("stroke-width", (1 + (this.minRadius / 3) * ring).toFixed(2));
      mark.pulse.setAttribute("r", (radius + 4).toFixed(1));
      mark.title.textContent = describe(group);
      setClass(mark.node, "used", group.num_requests > 0);
      setClass(mark.node, "latest", latest.has(group.cluster));
      setClass(mark.node, "running", group.num_running > 0);
      setClass(mark.node, "last", group.cluster === lastCluster);
    }
    this.list(clusters, latest, lastCluster, largest);
    this.map.setAttribute("aria-label", summarize(clusters, latest));
  }

  /** Puts a circle for every group where its centroid is; only when these change. */
  place(clusters) {
    const layout = JSON.stringify(clusters.map((group) => [group.cluster, group.position]));
    if (layout === this.layout) return;
    this.layout = layout;
    // A circle has to hold its number, if it has one.
    this.minRadius = clusters.length <= MAX_LABELS ? 9 : 3.5;
    this.maxRadius = Math.max(this.minRadius + 2, Math.min(MAX_RADIUS, 70 / Math.sqrt(clusters.length) + 4));
    this.marks.clear();
    this.map.replaceChildren();
    const points = spread(clusters.map((group) => group.position ?? [0, 0]), this.maxRadius);
    clusters.forEach((group, idx) => {
      const [x, y] = points[idx];
      const node = element("g", { class: "mark", transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` });
      const title = element("title", {});
      const pulse = element("circle", { class: "pulse" });
      const circle = element("circle", { class: "body" });
      node.append(title, pulse, circle);
      if (clusters.length <= MAX_LABELS) {
        const label = element("text", { "text-anchor": "middle", dy: "0.35em" });
        label.textContent = group.cluster;
        node.append(label);
      }
      this.map.append(node);
      this.marks.set(group.cluster, { node, title, pulse, circle });
    });
  }

  list(clusters, latest, lastCluster, largest) {
    const ordered = [...clusters].sort((l, r) => r.num_requests - l.num_requests || l.cluster - r.cluster);
    const rows = ordered.map((group) => {
      const row = document.createElement("tr");
      setClass(row, "latest", latest.has(group.cluster));
      setClass(row, "last", group.cluster === lastCluster);
      const name = document.createElement("th");
      name.scope = "row";
      name.textContent = group.cluster;
      const requests = document.createElement("td");
      requests.textContent = group.num_requests.toLocaleString();
      const change = document.createElement("td");
      change.append(...sizeOf(group.delta_norm, largest));
      row.append(name, requests, change);
      row.dataset.cluster = group.cluster;
      return row;
    });
    this.rows.replaceChildren(...rows);
  }
}

/** A number, and a bar that compares it with the largest. */
export function sizeOf(norm, largest) {
  if (norm == null) {
    const none = document.createElement("span");
    none.className = "unknown";
    none.textContent = "not used yet";
    return [none];
  }
  const number = document.createElement("span");
  number.textContent = figure(norm);
  const bar = document.createElement("span");
  bar.className = "size";
  bar.style.setProperty("--share", largest > 0 ? Math.min(1, norm / largest) : 0);
  return [number, bar];
}

export function figure(value) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 100 || size < 0.001 ? value.toPrecision(3) : value.toFixed(size >= 10 ? 1 : 3);
}

/** The groups of the latest requests of all. */
function latestOf(clusters) {
  const requests = clusters.flatMap((group) => group.recent_request_ids.map((id) => [id, group.cluster]));
  requests.sort((l, r) => r[0] - l[0]);
  return new Set(requests.slice(0, NUM_LATEST).map(([, cluster]) => cluster));
}

/** From the plane of the centroids to the picture: one scale for both directions, and no two circles on one spot. */
function spread(positions, radius) {
  const range = (axis) => {
    const values = positions.map((position) => position[axis]);
    return [Math.min(...values), Math.max(...values)];
  };
  const [[left, right], [low, high]] = [range(0), range(1)];
  const room = [WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN];
  const scale = Math.min(room[0] / Math.max(right - left, 1e-9), room[1] / Math.max(high - low, 1e-9));
  const fit = Number.isFinite(scale) && scale < 1e8 ? scale : 0;
  const points = positions.map(([x, y]) => [
    WIDTH / 2 + (x - (left + right) / 2) * fit,
    HEIGHT / 2 - (y - (low + high) / 2) * fit,
  ]);
  const apart = Math.min(radius * 1.6, 190 / Math.sqrt(points.length));
  for (let round = 0; round < 60 && points.length <= 300; round += 1) pushApart(points, apart);
  return points;
}

function pushApart(points, apart) {
  for (let i = 0; i < points.length; i += 1) {
    for (let j = i + 1; j < points.length; j += 1) {
      // Circles at the same position are moved apart in fixed directions.
      const dx = points[j][0] - points[i][0] || Math.cos(i * 2.4 + j) * 1e-3;
      const dy = points[j][1] - points[i][1] || Math.sin(i * 2.4 + j) * 1e-3;
      const distance = Math.hypot(dx, dy);
      if (distance >= apart) continue;
      const push = (apart - distance) / 2 / distance;
      points[i] = inside(points[i][0] - dx * push, points[i][1] - dy * push);
      points[j] = inside(points[j][0] + dx * push, points[j][1] + dy * push);
    }
  }
}

function inside(x, y) {
  return [
    Math.min(WIDTH - MARGIN, Math.max(MARGIN, x)),
    Math.min(HEIGHT - MARGIN, Math.max(MARGIN, y)),
  ];
}

function describe(group) {
  const requests = group.num_requests === 1 ? "1 request" : `${group.num_requests.toLocaleString()} requests`;
  const change = group.delta_norm == null ? "" : `, change ${figure(group.delta_norm)}`;
  return `Group ${group.cluster}: ${requests}${change}`;
}

function summarize(clusters, latest) {
  const total = clusters.reduce((sum, group) => sum + group.num_requests, 0);
  const recent = latest.size > 0 ? `; the latest fell in ${[...latest].join(", ")}` : "";
  return `Map of ${clusters.length} groups with ${total} requests${recent}. The table below has the numbers.`;
}

function element(name, attributes) {
  const node = document.createElementNS(SVG, name);
  for (const [attribute, value] of Object.entries(attributes)) node.setAttribute(attribute, value);
  return node;
}

function setClass(node, name, isSet) {
  node.classList.toggle(name, isSet);
}
