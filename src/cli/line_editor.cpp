#include "cli/line_editor.h"

#include <histedit.h>
#include <langinfo.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <utility>

namespace fathom {

namespace {
constexpr int kHistoryLines = 1000;

std::filesystem::path history_file(const std::string& name) {
  std::filesystem::path state;
  if (const char* xdg = std::getenv("XDG_STATE_HOME"); xdg && *xdg)
    state = xdg;
  else if (const char* home = std::getenv("HOME"); home && *home)
    state = std::filesystem::path(home) / ".local/state";
  else
    return {};
  std::error_code error;
  std::filesystem::create_directories(state / name, error);
  return error ? std::filesystem::path{} : state / name / "history";
}
}  // namespace

struct LineEditor::Edit {
  EditLine* editor = nullptr;
  History* history = nullptr;
  HistEvent event{};
  std::string prompt;
  std::filesystem::path file;
};

LineEditor::LineEditor(const std::string& name) {
  if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) return;
  // Editing wants to know how wide characters are, also where no locale is set.
  setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) setlocale(LC_CTYPE, "C.UTF-8");
  edit_ = std::make_unique<Edit>();
  edit_->editor = el_init("fathom", stdin, stdout, stderr);
  edit_->history = history_init();
  history(edit_->history, &edit_->event, H_SETSIZE, kHistoryLines);
  history(edit_->history, &edit_->event, H_SETUNIQUE, 1);
  edit_->file = history_file(name);
  if (!edit_->file.empty()) history(edit_->history, &edit_->event, H_LOAD, edit_->file.c_str());
  el_set(edit_->editor, EL_CLIENTDATA, edit_.get());
  el_set(edit_->editor, EL_EDITOR, "emacs");
  el_set(edit_->editor, EL_SIGNAL, 0);
  el_set(edit_->editor, EL_HIST, history, edit_->history);
  // \1 … \1 encloses what takes no room on the screen.
  el_set(
      edit_->editor, EL_PROMPT_ESC,
      +[](EditLine* el) -> char* {
        void* edit = nullptr;
        el_get(el, EL_CLIENTDATA, &edit);
        return static_cast<Edit*>(edit)->prompt.data();
      },
      '\1');
  el_set(edit_->editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
}

LineEditor::~LineEditor() {
  if (!edit_) return;
  if (!edit_->file.empty()) history(edit_->history, &edit_->event, H_SAVE, edit_->file.c_str());
  history_end(edit_->history);
  el_end(edit_->editor);
}

LineEditor::End LineEditor::read(const std::string& prompt, std::string& line) {
  line.clear();
  if (!edit_) {
    errno = 0;
    if (std::getline(std::cin, line)) return End::kLine;
    if (errno == EINTR && std::feof(stdin) == 0) {
      std::cin.clear();
      return End::kInterrupted;
    }
    return End::kEof;
  }
  edit_->prompt = "\1\033[1m\1" + prompt + "\1\033[0m\1";
  int count = 0;
  errno = 0;
  const char* text = el_gets(edit_->editor, &count);
  if (!text || count <= 0) {
    const bool interrupted = count < 0 && errno == EINTR;
    if (interrupted) el_reset(edit_->editor);
    return interrupted ? End::kInterrupted : End::kEof;
  }
  line.assign(text, static_cast<size_t>(count));
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  if (line.find_first_not_of(" \t") != std::string::npos) history(edit_->history, &edit_->event, H_ENTER, line.c_str());
  return End::kLine;
}

}  // namespace fathom
