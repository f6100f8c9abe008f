// multipart/form-data (RFC 7578): how files are uploaded.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace fathom {

struct FormPart {
  std::string name;
  std::string filename{};    // empty: a value, no file
  std::string_view content;  // of the body
};

// The parts in their order. content_type: the request's field, which names the boundary. Fails on what is no such body, saying
// what was found. Time and memory are linear in the body's size.
Result<std::vector<FormPart>> read_form(std::string_view content_type, std::string_view body);

}  // namespace fathom
