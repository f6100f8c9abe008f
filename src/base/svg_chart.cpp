#include "base/svg_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

namespace fathom::svg {

namespace {

constexpr double kWidth = 560, kHeight = 300, kLeft = 56, kRight = 16, kTop = 34, kBottom = 44;
constexpr double kPlotWidth = kWidth - kLeft - kRight, kPlotHeight = kHeight - kTop - kBottom;

template <typename... Args>
void add(std::string& out, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
}

// Steps of 1, 2 or 5 · 10ⁿ, about five of them to `most`.
double decimal_step(double most) {
  const double power = std::pow(10, std::floor(std::log10(most / 5)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power * 5 >= most * 0.999) return factor * power;
  return 10 * power;
}

// Token counts are round in binary, where they are large.
double token_step(double most) {
  if (most < 4096) return decimal_step(most);
  double step = 1024;
  while (step * 6 < most) step *= 2;
  return step;
}

// The frame that all charts share, and where a value lies in it.
class Frame {
 public:
  Frame(double x_max, double y_max) : x_max_(x_max > 0 ? x_max : 1), y_max_(y_max > 0 ? y_max : 1) {
    const double step = decimal_step(y_max_);
    y_max_ = std::ceil(y_max_ / step - 1e-9) * step;
    for (double y = 0; y <= y_max_ * 1.0001; y += step) {
      add(out_, "<line class='grid' x1='{}' x2='{}' y1='{:.1f}' y2='{:.1f}'/>", kLeft, kWidth - kRight, at_y(y),
          at_y(y));
      add(out_, "<text class='tick' x='{}' y='{:.1f}' text-anchor='end'>{}</text>", kLeft - 8, at_y(y) + 4,
          number_text(y));
    }
  }

  double at_x(double x) const { return kLeft + x / x_max_ * kPlotWidth; }
  double at_y(double y) const { return kTop + (1 - y / y_max_) * kPlotHeight; }

  void token_ticks() {
    const double step = token_step(x_max_);
    for (double x = 0; x <= x_max_ * 1.0001; x += step) x_tick(at_x(x), tokens_text(x));
  }
  void decimal_ticks() {
    const double step = decimal_step(x_max_);
    for (double x = 0; x <= x_max_ * 1.0001; x += step) x_tick(at_x(x), number_text(x));
  }
  void x_tick(double x, const std::string& label) {
    add(out_, "<text class='tick' x='{:.1f}' y='{}' text-anchor='middle'>{}</text>", x, kHeight - kBottom + 18,
        escape(label));
  }
  void labels(const std::string& x_label, const std::string& y_label) {
    add(out_, "<text class='label' x='{}' y='{}' text-anchor='middle'>{}</text>", kLeft + kPlotWidth / 2, kHeight - 6,
        escape(x_label));
    add(out_, "<text class='label' x='{}' y='16'>{}</text>", kLeft - 44, escape(y_label));
  }
  std::string& out() { return out_; }
  std::string take() { return fmt::format("<svg viewBox='0 0 {} {}' role='img'>{}</svg>", kWidth, kHeight, out_); }

 private:
  double x_max_, y_max_;
  std::string out_;
};

std::string legend(const std::vector<std::string>& names) {
  if (names.size() < 2) return "";  // the heading names a single one
  std::string out = "<div class='legend'>";
  for (size_t i = 0; i < names.size(); ++i)
    add(out, "<span><i style='background:var(--c{})'></i>{}</span>", i % 8 + 1, escape(names[i]));
  return out + "</div>";
}

}  // namespace

std::string line_chart(const LineChart& chart) {
  double x_max = 0, y_max = 0;
  std::vector<std::string> names;
  for (const Series& s : chart.series) {
    names.push_back(s.name);
    for (const Point& p : s.points) x_max = std::max(x_max, p.x), y_max = std::max({y_max, p.y, p.high});
  }
  Frame frame(x_max, y_max);
  if (chart.decimal_x)
    frame.decimal_ticks();
  else
    frame.token_ticks();
  frame.labels(chart.x_label, chart.y_label);
  std::string& out = frame.out();
  for (size_t i = 0; i < chart.series.size(); ++i) {
    const Series& s = chart.series[i];
    const std::string color = fmt::format("var(--c{})", i % 8 + 1);
    std::string path;
    for (const Point& p : s.points)
      add(path, "{}{:.1f},{:.1f}", path.empty() ? "M" : "L", frame.at_x(p.x), frame.at_y(p.y));
    add(out, "<path class='line' style='stroke:{}' d='{}'/>", color, path);
    for (const Point& p : s.points) {
      const double x = frame.at_x(p.x), y = frame.at_y(p.y);
      std::string tip =
          fmt::format("{}: {} {}", chart.decimal_x ? number_text(p.x) : tokens_text(p.x), number_text(p.y), chart.unit);
      if (chart.series.size() > 1) tip = s.name + " · " + tip;
      if (p.high > p.low) {
        add(out, "<line class='whisker' style='stroke:{}' x1='{:.1f}' x2='{:.1f}' y1='{:.1f}' y2='{:.1f}'/>", color, x,
            x, frame.at_y(p.low), frame.at_y(p.high));
        tip += fmt::format(" ({} – {})", number_text(p.low), number_text(p.high));
      }
      if (chart.markers) add(out, "<circle class='dot' style='fill:{}' cx='{:.1f}' cy='{:.1f}' r='4'/>", color, x, y);
      add(out, "<circle class='hit' cx='{:.1f}' cy='{:.1f}' r='12' data-tip='{}'/>", x, y, escape(tip));
    }
  }
  return legend(names) + frame.take();
}

std::string stacked_bars(const StackedBars& chart) {
  double y_max = 0;
  for (const StackedBars::Bar& bar : chart.bars) {
    double sum = 0;
    for (const double v : bar.values) sum += v;
    y_max = std::max(y_max, sum);
  }
  Frame frame(1, y_max);
  frame.labels(chart.x_label, chart.y_label);
  const double slot = kPlotWidth / static_cast<double>(std::max<size_t>(chart.bars.size(), 1));
  const double width = std::min(48.0, slot * 0.6);
  for (size_t b = 0; b < chart.bars.size(); ++b) {
    const StackedBars::Bar& bar = chart.bars[b];
    const double middle = kLeft + slot * (static_cast<double>(b) + 0.5);
    frame.x_tick(middle, bar.label);
    double below = 0;
    for (size_t i = 0; i < bar.values.size(); ++i) {
      const double top = frame.at_y(below + bar.values[i]), bottom = frame.at_y(below);
      below += bar.values[i];
      if (bottom - top < 0.3) continue;  // not to be seen
      add(frame.out(),
          "<rect class='bar' style='fill:var(--c{})' x='{:.1f}' y='{:.1f}' width='{:.1f}' height='{:.1f}' "
          "data-tip='{}'/>",
          i % 8 + 1, middle - width / 2, top, width, bottom - top,
          escape(fmt::format("{} · {}: {} {}", bar.label, chart.parts[i], number_text(bar.values[i]), chart.unit)));
    }
  }
  return legend(chart.parts) + frame.take();
}

std::string tokens_text(double tokens) {
  const double thousands = tokens / 1024, millions = thousands / 1024;
  if (millions >= 1 && millions == std::floor(millions)) return fmt::format("{:.0f}M", millions);
  if (tokens >= 1024 && thousands == std::floor(thousands)) return fmt::format("{:.0f}K", thousands);
  return fmt::format("{:.0f}", tokens);
}

std::string number_text(double value) {
  if (value >= 99.95 || value == 0) return fmt::format("{:.0f}", value);
  return fmt::format("{:.3g}", value);
}

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace fathom::svg
