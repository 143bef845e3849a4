"""The one style sheet of a report page, and the policy that lets it in by its digest and nothing else."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root{color-scheme:light;--ink:#1a1a1a;--soft:#505050;--rule:#c9c9c9;--wash:#f4f4f1;--link:#1b4f8f}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:#fff;color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI","Liberation Sans",
Arial,sans-serif;overflow-wrap:anywhere}
header,nav,main,footer{max-width:70rem;margin:0 auto;padding:0 1rem}
header{padding-top:1.5rem}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 .75rem}
h2{font-size:1.3rem;margin:2.5rem 0 .75rem;padding-top:.5rem;border-top:2px solid var(--ink)}
h3{font-size:1.15rem;margin:2rem 0 .5rem;padding-top:.4rem;border-top:1px solid var(--rule)}
h4{font-size:1rem;margin:1.5rem 0 .4rem}
h5{font-size:.95rem;margin:1.1rem 0 .15rem;font-family:ui-monospace,"Liberation Mono",Menlo,Consolas,monospace}
p{margin:.4rem 0;max-width:46rem}
a{color:var(--link)}
code,.word{font-family:ui-monospace,"Liberation Mono",Menlo,Consolas,monospace;font-size:.9em}
.soft{color:var(--soft);font-size:.9em}
table .soft{font-size:inherit}
.own{white-space:nowrap}
.banner{border:2px solid var(--ink);padding:.75rem 1rem 1rem}
.verdict{font-size:1.6rem;font-weight:700;margin:0;line-height:1.2}
.warning{border-left:6px solid #8a1f11;background:#fbeeec;padding:.5rem .75rem;margin:.75rem 0;max-width:none}
.pass{border-color:#1f6b3a}.fail{border-color:#8a1f11}.inconclusive{border-color:#6e5100}
dl{margin:.5rem 0}
dl div{display:flex;gap:0 1rem;padding:.1rem 0}
dt{flex:0 0 11rem;color:var(--soft)}
dd{margin:0;flex:1 1 0;min-width:0}
ul{margin:.4rem 0;padding-left:1.25rem}
nav{padding-top:1rem}
nav>ul{columns:18rem;column-gap:2rem}
nav li{break-inside:avoid}
nav ul ul{margin:0}
table{border-collapse:collapse;margin:.4rem 0 1rem;font-size:.9rem;font-variant-numeric:tabular-nums;max-width:100%}
caption{text-align:left;color:var(--soft);padding:.2rem 0}
th,td{text-align:left;vertical-align:top;padding:.15rem .9rem .15rem 0;border-bottom:1px solid var(--rule);
font-weight:400}
thead th{font-weight:600;border-bottom:1px solid var(--ink)}
th{min-width:5em}
tr:last-child>*{border-bottom-color:var(--rule)}
.missed th,.missed td,.missed p{font-weight:700;background:#fbeeec}
.metrics{columns:30rem;column-gap:2.5rem}
.metrics>section.short{break-inside:avoid}
.metrics section>h5,.metrics section>p{break-inside:avoid}
.metrics section>h5,.metrics section>p:not(:last-child){break-after:avoid}
thead{break-inside:avoid}
.metrics>section.spread{column-span:all;padding-top:1rem}
.metrics h5:first-child{margin-top:.2rem}
.metrics table{width:100%}
.finding{break-inside:avoid;border-left:4px solid var(--rule);padding:.1rem 0 .1rem .75rem;margin:.75rem 0}
.concern{border-left-color:#6e5100}.breach{border-left-color:#8a1f11}
.claim{background:var(--wash);padding:.3rem .6rem;margin:.3rem 0}
figure{margin:1.25rem 0 1.75rem;max-width:46rem;break-inside:avoid}
figcaption{font-weight:600;margin-bottom:.3rem}
svg.plot{display:block;width:100%;height:auto}
svg text{font:12px system-ui,-apple-system,"Segoe UI","Liberation Sans",Arial,sans-serif;fill:#1a1a1a}
svg text.cell{font-size:10px}svg text.light{fill:#fff}
.names{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.1rem 1.25rem;font-size:.85rem}
.names svg,.key svg{vertical-align:-.15em}
.key{font-size:.85rem;color:var(--soft)}
footer{padding-bottom:3rem}
@media (max-width:40rem){
body{font-size:15px}
h1{font-size:1.25rem}
.verdict{font-size:1.35rem}
dl div{display:block;padding:.25rem 0}
table{font-size:.8rem;width:100%}
th,td{padding-right:.5rem}
.stacked thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.stacked tbody,.stacked tr,.stacked th,.stacked td{display:block}
.stacked tr{border-bottom:1px solid var(--rule);padding:.3rem 0}
.stacked th,.stacked td{border:0;padding:0}
.stacked tbody th{min-width:0;display:inline;padding-right:.75rem}
.stacked tbody th{font-weight:600}
.stacked td{display:inline;padding-right:.75rem}
.stacked td::before,.stacked tbody th::before{content:attr(data-of) " ";color:var(--soft);font-weight:400}
svg text{font-size:17px}
svg text.cell{font-size:12px}
}
@media print{
@page{margin:15mm}
html{font-size:9.5pt}
body{font-size:1rem;line-height:1.35}
header,nav,main,footer{max-width:none;padding:0}
a{color:inherit;text-decoration:none}
h2,h3,h4,h5,caption{break-after:avoid}
tr,.banner,.finding{break-inside:avoid}
thead{display:table-header-group}
.metrics{columns:2;column-gap:8mm}
table{font-size:7.5pt}
th,td{padding-right:.5rem}
figure{max-width:150mm}
svg,.claim,.warning{print-color-adjust:exact;-webkit-print-color-adjust:exact}
}
"""
"""Sizes follow the reader's own letters; 40rem is where a phone begins, 30rem a column of numbers. Colours of text are
at 4.5:1 or more on their ground (WCAG 2.2, 1.4.3): soft on wash 7.2:1, link on white 8.3:1."""

STYLE_SHA256 = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

POLICY = f"default-src 'none'; style-src 'sha256-{STYLE_SHA256}'; img-src data:; base-uri 'none'; form-action 'none'"
"""Content security policy of the page (specification, section 14), exact."""
