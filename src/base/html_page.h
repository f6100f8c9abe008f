// The frame of the reports: one self-contained page, nothing loaded from anywhere.
#pragma once

#include <string>
#include <string_view>

namespace fathom {

// Style for headings, paragraphs, tables in <div class='scroll'>, <figure>s in <div class='charts'> and the charts of
// svg_chart.h, in light and dark; tips where an element has `data-tip`. title: plain text; body: HTML.
std::string html_page(std::string_view title, std::string_view body);

}  // namespace fathom
