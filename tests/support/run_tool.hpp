#pragma once

#include <sys/wait.h>

#include <cstdio>
#include <filesystem>
#include <stdexcept>
#include <string>

#include "pipeline/files.hpp"
#include "tests/support/temporary_folder.hpp"

namespace gp::testing {

struct ToolResult {
  int exit_code = -1;  ///< -1: ended by a signal
  std::string out;
  std::string err;
};

/// Runs a shell's command and waits for it.
inline ToolResult run_shell(const std::string& command) {
  const TemporaryFolder folder;
  const std::string whole = "{ " + command + "\n} 2>'" + (folder / "stderr").string() + "'";
  std::FILE* pipe = ::popen(whole.c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("popen failed");
  ToolResult result;
  char buffer[4096];
  for (std::size_t got; (got = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) {
    result.out.append(buffer, got);
  }
  const int status = ::pclose(pipe);
  result.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  result.err = read_text(folder / "stderr");
  return result;
}

/// "/.../bin/gan-prep"
inline std::string tool_path(const std::string& program) {
  return std::string(GP_BINARY_DIR) + "/bin/" + program;
}

/// Runs a program of the build ("gan-prep") with arguments as a shell takes them, and waits for it.
inline ToolResult run_tool(const std::string& program, const std::string& arguments) {
  return run_shell(tool_path(program) + " " + arguments);
}

}  // namespace gp::testing
