#include "base/html_page.h"

#include <fmt/format.h>

#include "base/svg_chart.h"

namespace fathom {

namespace {

constexpr std::string_view kBeforeTitle = R"(<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
)";
constexpr std::string_view kAfterTitle = R"(
<style>
:root{color-scheme:light dark;--page:#f6f6f4;--surface:#fff;--ink:#1d1d1b;--quiet:#6b6a66;--grid:#e4e3df;
--c1:#2a78d6;--c2:#e8702a;--c3:#1a9f72;--c4:#d9a100;--c5:#d8578f;--c6:#6f5bd0;--c7:#8b8a85;--c8:#d64545}
@media(prefers-color-scheme:dark){:root{--page:#161615;--surface:#1f1f1d;--ink:#ececea;--quiet:#a09f9a;--grid:#363633;
--c1:#4d94ea;--c2:#e07b3c;--c3:#2fb387;--c4:#d0a02a;--c5:#de6fa2;--c6:#9585ee;--c7:#8b8a85;--c8:#e36a6a}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1240px;padding:28px 20px 60px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:22px;margin:0 0 4px;overflow-wrap:anywhere}h2{font-size:17px;margin:32px 0 12px}h3{font-size:15px;margin:0 0 6px}
p{margin:2px 0;color:var(--quiet)}p b{color:var(--ink);font-weight:600}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));gap:16px}
figure{margin:0;padding:16px;background:var(--surface);border:1px solid var(--grid);border-radius:10px}
svg{display:block;width:100%;height:auto}
.grid{stroke:var(--grid)}.tick,.label{fill:var(--quiet);font-size:12px}.tick{font-variant-numeric:tabular-nums}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.whisker{stroke-width:1.5;opacity:.6}
.dot{stroke:var(--surface);stroke-width:2}.hit{fill:transparent}.bar{stroke:var(--surface);stroke-width:1.5}
.legend{display:flex;flex-wrap:wrap;gap:2px 14px;font-size:13px;color:var(--quiet);margin-bottom:6px}
.legend i{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:6px}
.scroll{overflow-x:auto;background:var(--surface);border:1px solid var(--grid);border-radius:10px}
table{border-collapse:collapse;width:100%;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:6px 14px;text-align:right;border-bottom:1px solid var(--grid);white-space:nowrap}
tr:last-child td{border-bottom:0}th{color:var(--quiet);font-weight:500}th:nth-child(2),td:nth-child(2){text-align:left}
th.heat{text-align:center}td.heat{text-align:center;min-width:64px;background:color-mix(in srgb,var(--c3) calc(var(--share)*70%),var(--surface))}
.track{display:inline-block;position:relative;width:180px;height:10px;background:var(--grid);border-radius:3px;
vertical-align:middle}
.track i{position:absolute;top:0;bottom:0;border-radius:3px}.track .range{opacity:.35}.track .mean{width:3px;margin-left:-1px}
#tip{position:fixed;display:none;pointer-events:none;padding:4px 9px;border-radius:6px;font-size:13px;
background:var(--ink);color:var(--page)}
</style></head><body>
)";
constexpr std::string_view kTail = R"(<div id="tip"></div><script>
const tip=document.getElementById('tip');
document.addEventListener('pointermove',e=>{const t=e.target.dataset&&e.target.dataset.tip;
tip.style.display=t?'block':'none';if(!t)return;tip.textContent=t;
tip.style.left=Math.min(e.clientX+14,innerWidth-tip.offsetWidth-8)+'px';tip.style.top=(e.clientY-34)+'px'});
</script></body></html>
)";

}  // namespace

std::string html_page(std::string_view title, std::string_view body) {
  return fmt::format("{}<title>{}</title>{}{}{}", kBeforeTitle, svg::escape(title), kAfterTitle, body, kTail);
}

}  // namespace fathom
