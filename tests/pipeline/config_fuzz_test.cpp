// Damaged configurations: whatever the file holds, the answer is a Config or a ConfigError, and
// what is accepted reads back to the same. Run under asan and ubsan like every test.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "pipeline/error.hpp"
#include "pipeline/rng.hpp"
#include "tests/pipeline/config_fixture.hpp"

namespace gp {
namespace {

namespace fs = std::filesystem;

/// Corners of YAML that no shipped configuration visits.
constexpr const char* kOddYaml = R"(%YAML 1.2
---
"name": 'odd-1'   # comment
seed: +7
modules: []
stages: &stages
- use: source.fgvc
  root: "/tmp/\u00e9\x41\n"
  weights: [1, 2.5e-3, .5,
            0]
  label: >-
    folded
    text
- {use: image.decode, name: decode-1}
- {use: &r image.resize, size: 32, fit: pad}
- {use: *r, size: 16, name: small}
- ? use
  : batch
- use: train.dcgan
  epochs: 1
- {use: evaluate.quality, held_out: {fraction: 0.25, label: 'it''s'}, reference: {}}
run: {threads: 2, max_in_flight: 192}
...
)";

/// Changes another file, chooses among stages, and takes paths from the environment.
constexpr const char* kDerivedYaml = "base: " GP_SOURCE_DIR R"(/configs/demo.yaml
plugins: [augment_affine, ./mine.so]
stages:
  - {change: train.gan, epochs: 2}
  - {remove: evaluate.quality}
  - use: augment.one_of
    after: augment.flip
    p: 0.5
    stages:
      - {use: augment.affine, weight: 2, rotate: 3}
      - {use: augment.one_of, stages: [{use: image.crop, bottom: 1}, {use: image.resize, size: 8}]}
  - {use: image.crop, name: last, before: batch}
  - {change: source.synthetic, use: source.fgvc, root: "~/${HOME:-x}/$$"}
run: {threads: 3}
)";

/// How many inputs: enough to find what small changes break. A longer hunt:
///   GP_FUZZ_INPUTS=20000000 build/asan/tests/config_fuzz_test --gtest_filter='*DamagedFiles*'
std::uint64_t number_of_inputs() {
  const char* text = std::getenv("GP_FUZZ_INPUTS");
  return text == nullptr ? 95000 : std::strtoull(text, nullptr, 10);
}

std::vector<std::string> seeds() {
  std::vector<std::string> texts = {kGoodYaml, kOddYaml, kDerivedYaml};
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(fs::path(GP_SOURCE_DIR) / "configs")) {
    if (entry.path().extension() == ".yaml") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());  // the same cases on every machine
  for (const fs::path& file : files) {
    std::ostringstream text;
    text << std::ifstream(file).rdbuf();
    texts.push_back(text.str());
  }
  return texts;
}

/// One to four changes: flipped bits, inserted signs of YAML, removed, doubled and moved pieces.
std::string mutate(std::string text, const std::vector<std::string>& others, Rng& rng) {
  static const std::string kSigns =
      "{}[]:,-?&*!|>'\"%@`#\n\t \r\\~<0123456789.eE+_\xff\x80\xef\x01";
  const std::uint32_t n = 1 + rng.below(4);
  for (std::uint32_t i = 0; i < n && !text.empty(); ++i) {
    const std::size_t at = rng.below(static_cast<std::uint32_t>(text.size()));
    const std::size_t length = std::min<std::size_t>(1 + rng.below(40), text.size() - at);
    switch (rng.below(7)) {
      case 0:
        text[at] = static_cast<char>(text[at] ^ (1U << rng.below(8)));
        break;
      case 1:
        text.insert(at, 1, kSigns[rng.below(static_cast<std::uint32_t>(kSigns.size()))]);
        break;
      case 2:
        text.erase(at, length);
        break;
      case 3:
        text.insert(at, text.substr(at, length));
        break;
      case 4:
        text.resize(at);
        break;
      case 5: {                                              // a whole line again, somewhere else
        const std::size_t start = text.rfind('\n', at) + 1;  // npos + 1 is 0
        const std::string line = text.substr(start, text.find('\n', at) - start) + "\n";
        const std::size_t there = rng.below(static_cast<std::uint32_t>(text.size()));
        text.insert(text.rfind('\n', there) + 1, line);
        break;
      }
      default: {
        const std::string& other = others[rng.below(static_cast<std::uint32_t>(others.size()))];
        const std::size_t from = rng.below(static_cast<std::uint32_t>(other.size()));
        text.replace(at, length, other.substr(from, 1 + rng.below(60)));
      }
    }
  }
  return text;
}

enum class Outcome { kAccepted, kRefused };

Outcome run(const std::string& yaml, const std::vector<std::string>& overrides,
            const StageRegistry& registry) {
  try {
    const ConfigFile file = ConfigFile::parse(yaml, "/fuzz/a.yaml", overrides);
    file.plugins();
    file.modules();
    file.stage_names();
    const Config config = check_config(file, registry);
    const std::string resolved = config.resolved_yaml();
    const Config again = check_config(ConfigFile::parse(resolved, "/other/b.yaml"), registry);
    EXPECT_EQ(again.resolved_yaml(), resolved) << yaml;
    EXPECT_EQ(again.seed, config.seed);
    EXPECT_EQ(again.stages.size(), config.stages.size());
    return Outcome::kAccepted;
  } catch (const ConfigError& error) {
    EXPECT_FALSE(std::string(error.what()).empty());
    return Outcome::kRefused;
  }
}

TEST(ConfigFuzz, TheSeedsAreGood) {
  const StageRegistry registry = fake_registry();
  for (const char* yaml : {kGoodYaml, kOddYaml}) {
    EXPECT_EQ(run(yaml, {}, registry), Outcome::kAccepted);
  }
}

TEST(ConfigFuzz, DamagedFilesAreRefusedOrRight) {
  const StageRegistry registry = fake_registry();
  const auto texts = seeds();
  int accepted = 0, refused = 0;
  const std::uint64_t n_inputs = number_of_inputs();
  for (std::uint64_t i = 0; i < n_inputs; ++i) {
    Rng rng(1, "config fuzz", i);
    const std::string yaml = mutate(texts[i % texts.size()], texts, rng);
    SCOPED_TRACE(i);
    (run(yaml, {}, registry) == Outcome::kAccepted ? accepted : refused)++;
  }
  // Both sides are exercised.
  EXPECT_GT(accepted, 50);
  EXPECT_GT(refused, 1000);
}

TEST(ConfigFuzz, DamagedOverridesAreRefusedOrRight) {
  const StageRegistry registry = fake_registry();
  const std::vector<std::string> texts = {"stages.augment.flip.p=0.3",
                                          "stages.evaluate.quality.reference.split=val",
                                          "stages.evaluate.quality.held_out={split: test}",
                                          "stages.source.fgvc.weights=[1, 2e-3]",
                                          "run.threads=auto",
                                          "run={prefetch: 1}",
                                          "plugins=[a, b]",
                                          "name=\"x\"",
                                          "seed=18446744073709551615",
                                          "stages.batch.size=32"};
  int accepted = 0;
  for (std::uint64_t i = 0; i < 4000; ++i) {
    Rng rng(1, "override fuzz", i);
    std::vector<std::string> overrides;
    for (std::uint32_t n = 1 + rng.below(2); n > 0; --n) {
      const std::string& text = texts[rng.below(static_cast<std::uint32_t>(texts.size()))];
      // The value alone in half of the cases, else the address as well.
      const std::size_t start = rng.below(2) == 0 ? text.find('=') + 1 : 0;
      overrides.push_back(text.substr(0, start) + mutate(text.substr(start), texts, rng));
    }
    SCOPED_TRACE(overrides.front());
    if (run(kGoodYaml, overrides, registry) == Outcome::kAccepted) ++accepted;
  }
  EXPECT_GT(accepted, 50);
}

TEST(ConfigFuzz, GarbageIsRefused) {
  const StageRegistry registry = fake_registry();
  for (std::uint64_t i = 0; i < 2000; ++i) {
    Rng rng(1, "garbage", i);
    // Half of it arbitrary bytes, half of it made of YAML's own signs.
    static const std::string kSigns = "{}[]:,-?&*!|>'\"%@#\n\n  ab1~<.";
    std::string text(rng.below(300), ' ');
    for (char& c : text) {
      c = i % 2 == 0 ? static_cast<char>(rng.below(256))
                     : kSigns[rng.below(static_cast<std::uint32_t>(kSigns.size()))];
    }
    SCOPED_TRACE(i);
    EXPECT_EQ(run(text, {}, registry), Outcome::kRefused);
  }
}

}  // namespace
}  // namespace gp
