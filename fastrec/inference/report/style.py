"""The style of the page: light and dark by the reader's setting, one column on a phone."""

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--card:#f6f7f9;--ink:#1b1f24;--soft:#59636e;--line:#d8dde3;
--c0:#2563c9;--c1:#c2560c;--c2:#0f8a6a;--c3:#8a3fc0}
@media(prefers-color-scheme:dark){:root{--bg:#101418;--card:#181e24;--ink:#e6eaee;--soft:#9aa6b2;--line:#323b45;
--c0:#6ea8ff;--c1:#ff9d5c;--c2:#4fd0ac;--c3:#c792f5}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1240px;padding:16px;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25;margin:.2em 0}h2{font-size:1.15rem;margin:1.8em 0 .6em}
h3{font-size:1rem;margin:0 0 .4em}
p{margin:.4em 0}.lead,.note{color:var(--soft)}.note{font-size:.82rem}
nav{display:flex;flex-wrap:wrap;gap:4px 14px;margin:.8em 0;font-size:.9rem}a{color:var(--c0)}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:10px}
.tile{background:var(--card);border-radius:8px;padding:10px 12px}.tile b{display:block;font-size:1.25rem}
.tile span{color:var(--soft);font-size:.82rem}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:14px;align-items:start}
.two{grid-template-columns:repeat(auto-fill,minmax(min(100%,500px),1fr))}
figure,.bars,.card{margin:0;background:var(--card);border-radius:8px;padding:12px;min-width:0}
figcaption{font-weight:600}.keys{display:flex;flex-wrap:wrap;gap:2px 12px;font-size:.8rem;color:var(--soft)}
.key::before{content:"";display:inline-block;width:14px;height:3px;margin-right:5px;vertical-align:middle}
.k0::before{background:var(--c0)}.k1::before{background:var(--c1)}.k2::before{background:var(--c2)}
.k3::before{background:var(--c3)}.km::before{height:0;border-top:2px dashed var(--soft)}
figure svg{width:100%;height:auto;display:block}
svg .grid{stroke:var(--line)}svg .axis{stroke:var(--soft)}svg .mark{stroke:var(--soft);stroke-dasharray:4 3}
svg text{fill:var(--soft);font-size:11px}path{fill:none;stroke-width:2;stroke-linejoin:round}
path.s0{stroke:var(--c0)}path.s1{stroke:var(--c1);stroke-width:1.2}path.s2{stroke:var(--c2)}path.s3{stroke:var(--c3)}
circle.s0{fill:var(--c0)}circle.s1{fill:var(--c1)}circle.s2{fill:var(--c2)}circle.s3{fill:var(--c3)}
table{border-collapse:collapse;width:100%;font-size:.88rem;overflow-wrap:break-word}
th,td{text-align:left;padding:3px 8px 3px 0;vertical-align:top}
th{font-weight:600;border-bottom:1px solid var(--line)}td.n,th.n{text-align:right;white-space:nowrap;
font-variant-numeric:tabular-nums}
.own{font-weight:600}small{color:var(--soft);font-weight:400}.hash td{overflow-wrap:anywhere}.scroll{overflow-x:auto}
.bar{width:34%}.bar svg{width:100%;height:14px;display:block}.fill{fill:var(--c0);opacity:.75}.fill.b{fill:var(--c1)}
.whisker{stroke:var(--ink);stroke-width:1.5;vector-effect:non-scaling-stroke}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:14px}.pair ol{margin:0;padding-left:1.6em}
.pair li span{display:block;color:var(--soft);font-size:.8rem}
details{background:var(--card);border-radius:8px;padding:10px 12px;margin:8px 0}summary{cursor:pointer;font-weight:600}
code{font-family:ui-monospace,"DejaVu Sans Mono",monospace;font-size:.85em}
@media(max-width:640px){body{padding:12px}.bar{width:26%}.figures small{display:block}
.pair{grid-template-columns:1fr}td,th{padding-right:6px}}
@media print{body{max-width:none}details{break-inside:avoid}}
"""
