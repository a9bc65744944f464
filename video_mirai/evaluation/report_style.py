"""Style sheet and script of the report page, inlined so that the page works offline."""

STYLE = """
:root { color-scheme: light dark; --bg: #f6f7f9; --card: #ffffff; --ink: #1d2330; --soft: #5d6678; --line: #e3e6ec;
  --good: #0b7a53; --bad: #b3391b; --accent: #0072B2; --chip: #eef1f6; }
@media (prefers-color-scheme: dark) { :root { --bg: #0f1218; --card: #171b24; --ink: #e6e9f0; --soft: #9aa4b8;
  --line: #2c3240; --good: #4cc38a; --bad: #ff8a66; --accent: #63b3ed; --chip: #222836; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 20px 14px 60px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 8px 0 4px; }
h2 { font-size: 1.2rem; margin: 0 0 10px; }
h3 { font-size: 1rem; margin: 18px 0 6px; }
p { margin: 6px 0; }
.soft { color: var(--soft); font-size: .92rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 16px; margin: 16px 0; }
.chips { display: flex; flex-wrap: wrap; gap: 6px; margin: 10px 0; }
.chips span { background: var(--chip); border-radius: 999px; padding: 2px 10px; font-size: .85rem; }
.warning { border-left: 4px solid #E69F00; padding: 4px 10px; margin: 8px 0; background: var(--chip);
  border-radius: 4px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 7px 10px; border-bottom: 1px solid var(--line); vertical-align: top;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--card); }
th { font-size: .82rem; color: var(--soft); font-weight: 600; }
td small { display: block; color: var(--soft); font-size: .74rem; }
td:first-child { min-width: 8.5rem; max-width: 15rem; overflow-wrap: break-word; white-space: normal; }
.words td, .words th { text-align: left; white-space: normal; }
.words td:first-child { min-width: 0; }
.words td:nth-child(n+4) { min-width: 13rem; }
.words td:nth-child(-n+3) { white-space: nowrap; }
tr.model td:first-child { font-weight: 650; }
tr.split td { border-top: 2px solid var(--soft); }
.better { color: var(--good); } .worse { color: var(--bad); } .unclear, .unknown { color: var(--soft); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 14px; }
.plots img { width: 100%; height: auto; border-radius: 8px; display: block; }
figure { margin: 0; }
figcaption { color: var(--soft); font-size: .85rem; }
.strip { margin: 14px 0 18px; border-bottom: 1px solid var(--line); padding-bottom: 12px; }
.tiles { display: grid; grid-template-columns: repeat(var(--columns), minmax(0, 160px)); gap: 8px; }
.strips { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); column-gap: 20px; }
.tiles video { width: 100%; display: block; border-radius: 6px; background: #000;
  image-rendering: crisp-edges; image-rendering: pixelated; }
.clock { font-size: .85rem; color: var(--soft); font-variant-numeric: tabular-nums; }
.clock b { font-weight: 600; }
.clock[data-phase="beyond"] b { color: var(--accent); }
button { font: inherit; color: inherit; background: var(--chip); border: 1px solid var(--line); border-radius: 8px;
  padding: 6px 12px; }
dt { font-weight: 600; margin-top: 10px; }
dd { margin: 0; color: var(--soft); font-size: .92rem; overflow-wrap: anywhere; }
code, .mono { font-family: ui-monospace, monospace; font-size: .84em; overflow-wrap: anywhere; }
details summary { cursor: pointer; }
pre { overflow-x: auto; font-size: .8rem; }
@media (max-width: 560px) { main { padding: 10px 8px 40px; }
  section { padding: 12px; } th, td { padding: 6px 7px; } td:first-child { max-width: 9.5rem; } }
"""

# Only strips on screen play (phones decode few videos at once); the first video of a strip is the clock of the others.
SCRIPT = """
const info = document.body.dataset, fps = +info.fps, history_ = +info.history, training = +info.training;
let paused = matchMedia("(prefers-reduced-motion: reduce)").matches;
const strips = [...document.querySelectorAll(".strip")];
function videos(strip) { return [...strip.querySelectorAll("video")]; }
function update(strip) {
  const play = strip.dataset.visible === "1" && !paused;
  for (const video of videos(strip)) { if (play) video.play().catch(() => {}); else video.pause(); }
}
const watcher = new IntersectionObserver(entries => { for (const entry of entries) {
  entry.target.dataset.visible = entry.isIntersecting ? "1" : "0"; update(entry.target); } });
for (const strip of strips) {
  watcher.observe(strip);
  const [first, ...others] = videos(strip), clock = strip.querySelector(".clock");
  first.addEventListener("timeupdate", () => {
    for (const video of others)
      if (Math.abs(video.currentTime - first.currentTime) > 1.5 / fps) video.currentTime = first.currentTime;
  });
  setInterval(() => {
    if (strip.dataset.visible !== "1") return;
    const frame = Math.min(Math.floor(first.currentTime * fps) + 1, +info.frames);
    const phase = frame <= history_ ? "history" : frame <= training ? "inside" : "beyond";
    const words = { history: "given history", inside: "generated", beyond: "generated, beyond the training length" };
    clock.dataset.phase = phase;
    clock.innerHTML = "frame " + frame + " · <b>" + words[phase] + "</b>";
  }, 60);
}
const button = document.querySelector("#pause");
function label() { button.textContent = paused ? "Play videos" : "Pause videos"; }
if (button) { label(); button.addEventListener("click", () => { paused = !paused; label(); strips.forEach(update); }); }
"""


def page_head(title: str, more_style: str = "") -> str:
    """A page up to its body. title: escaped HTML; more_style: after what all pages have."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{STYLE}{more_style}</style>
</head>
"""
