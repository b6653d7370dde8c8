"""The page's style sheet, for light and dark."""

__all__ = ["STYLE"]

# Blue and orange differ for every kind of colour vision; what is lost is red, and has a form of its
# own besides.
STYLE = """
:root {
  color-scheme: light dark;
  --page: #ffffff; --card: #f7f8fa; --edge: #dfe3e8; --text: #1b2330; --soft: #5c6675;
  --grid: #e3e7ec; --axis: #9aa4b1;
  --all: #1f6fd0; --one: #d9730d; --none: #7a5bb5;
  --in-sync: #9cc4f2; --eligible: #cfd9e6; --lane: #eceff3; --down: #5a6472;
  --fault: #f6e3b4; --fault-edge: #c79a2b; --fault-text: #4d3a06;
  --lost: #c62839; --leaderless: #c6283922; --watermark: #12805c; --epoch: #ffffff;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161c; --card: #1a2029; --edge: #2c3542; --text: #e6eaf0; --soft: #9aa6b5;
    --grid: #2a323d; --axis: #66717f;
    --all: #62a8f5; --one: #f0994a; --none: #b39ae6;
    --in-sync: #2f5f96; --eligible: #3a4657; --lane: #222a35; --down: #98a3b1;
    --fault: #4a3c14; --fault-edge: #b08a2c; --fault-text: #f3e2b3;
    --lost: #ff6b78; --leaderless: #ff6b7822; --watermark: #4cc79b; --epoch: #0e1218;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 26px; margin: 0 0 6px; }
h2 { font-size: 18px; margin: 34px 0 8px; }
p { margin: 6px 0; max-width: 78ch; }
.soft, figcaption { color: var(--soft); }
code { font: 13px/1.5 ui-monospace, "DejaVu Sans Mono", monospace; background: var(--card);
  border: 1px solid var(--edge); border-radius: 4px; padding: 1px 5px; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 6px 9px; border-bottom: 1px solid var(--edge); text-align: right;
  white-space: nowrap; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal;
  line-height: 1.25; }
th:first-child, td:first-child { text-align: left; }
td.bad { color: var(--lost); font-weight: 600; }
figure { margin: 0; padding: 16px; background: var(--card); border: 1px solid var(--edge);
  border-radius: 8px; }
figure.wide { overflow-x: auto; }
figure.wide svg { min-width: 820px; }
figcaption { font-size: 13.5px; margin-top: 8px; max-width: 95ch; }
figure h3 { margin: 0 0 10px; font-size: 15px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(340px, 1fr)); gap: 16px; }
.key { display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 10px 0 0; font-size: 13.5px; }
.key span { display: inline-flex; align-items: center; gap: 7px; }
.key i { width: 18px; height: 12px; border-radius: 3px; display: inline-block; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--text); font-size: 12px; }
svg .tick, svg .note { fill: var(--soft); font-size: 11.5px; }
svg .value { fill: var(--soft); font-size: 12px; }
svg .row { font-size: 12.5px; }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .axis { stroke: var(--axis); stroke-width: 1; }
.acks-all { --mark: var(--all); } .acks-1 { --mark: var(--one); } .acks-0 { --mark: var(--none); }
svg .dot { fill: var(--mark); stroke: var(--card); stroke-width: 2; }
svg .trail { fill: none; stroke: var(--mark); stroke-width: 2; opacity: .45; }
svg .span { fill: var(--mark); opacity: .45; }
svg .name { fill: var(--mark); font-weight: 600; }
svg .bar { fill: var(--mark); } svg .part-1 { opacity: .6; } svg .part-2 { opacity: .3; }
svg .lane { fill: var(--lane); }
svg .leader, .key .leader { fill: var(--all); background: var(--all); }
svg .in-sync, .key .in-sync { fill: var(--in-sync); background: var(--in-sync); }
svg .eligible, .key .eligible { fill: var(--eligible); background: var(--eligible); }
.key .lane { background: var(--lane); }
svg .down, .key .down { fill: var(--down); background: var(--down); }
svg .epoch { fill: var(--epoch); font-size: 11px; font-weight: 600; pointer-events: none; }
svg .fault { fill: var(--fault); stroke: var(--fault-edge); stroke-width: 1; }
svg .fault-name { fill: var(--fault-text); font-size: 11px; pointer-events: none; }
svg .leaderless, .key .leaderless { fill: var(--leaderless); background: var(--leaderless); }
svg .line { fill: none; stroke-width: 2; }
svg .log-end { stroke: var(--axis); }
svg .acknowledged { stroke: var(--one); stroke-dasharray: 5 3; }
svg .watermark { stroke: var(--watermark); }
svg .lost { stroke: var(--lost); stroke-width: 1.5; stroke-dasharray: 4 3; }
svg .lost-dot { fill: var(--lost); stroke: var(--card); stroke-width: 2; }
svg .lost-name { fill: var(--lost); font-weight: 600; }
ul { padding-left: 20px; }
"""
