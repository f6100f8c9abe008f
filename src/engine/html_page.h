// What the pages of reports begin and end with: inline CSS, nothing loaded from anywhere; light or dark as the reader's
// system is. Between them: headings, <div class='charts'> of <figure> (svg_chart.h), <div class='scroll'> of tables.
#pragma once

#include <string>
#include <string_view>

namespace fathom {

std::string page_head(std::string_view title);
// Shows the `data-tip` of what is pointed at.
std::string_view page_tail();

}  // namespace fathom
