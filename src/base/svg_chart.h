// Charts as inline SVG. Colours and fonts come from the page's CSS: --c1 … --c8 for series, --ink, --quiet, --grid,
// --surface. What a reader may point at has a `data-tip`.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fathom::svg {

struct Point {
  double x = 0, y = 0;
  double low = 0, high = 0;  // whiskers, where high > low
};

struct Series {
  std::string name;
  std::vector<Point> points;  // rising in x
};

struct LineChart {
  std::string x_label, y_label;
  std::vector<Series> series;
  std::string unit;        // of y, in tips
  bool markers = true;     // measured points; false: a formula's line
  bool decimal_x = false;  // x is no number of tokens
};
std::string line_chart(const LineChart& chart);

struct StackedBars {
  std::string x_label, y_label;
  std::vector<std::string> parts;  // at most eight; the first lies at the bottom
  struct Bar {
    std::string label;
    std::vector<double> values;  // one a part
  };
  std::vector<Bar> bars;
  std::string unit;
};
std::string stacked_bars(const StackedBars& chart);

// 131072 -> "128K", 2097152 -> "2M", 1000 -> "1000"
std::string tokens_text(double tokens);
// Three significant digits, without needless zeros.
std::string number_text(double value);
std::string escape(std::string_view text);

}  // namespace fathom::svg
