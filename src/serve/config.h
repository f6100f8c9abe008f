// All options of a server, and the file that has them.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>

#include "base/result.h"
#include "serve/http_server.h"
#include "serve/service.h"

namespace fathom {

struct ServeConfig {
  HttpServerSettings http{.port = 8000};
  ServiceSettings service;
  std::chrono::seconds drain{30};  // for what is under way when the server is to end
};

// JSON; docs/operations.md has the members. Paths are relative to the file's folder. What is wrong is told all at once, unknown
// members included. Only the file's own content is looked at.
Result<ServeConfig> read_serve_config(const std::filesystem::path& file);

// What holds between options, and between them and the machine: models' folders and names, certificate with key, an
// address beyond this machine only with keys. Fills in what follows from others.
Status check_serve_config(ServeConfig& config);

}  // namespace fathom
