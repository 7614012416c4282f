// A good configuration with one thing wrong: where the message points, and what it says.
#include <gtest/gtest.h>

#include "pipeline/error.hpp"
#include "tests/pipeline/config_fixture.hpp"

namespace gp {
namespace {

struct WrongConfig {
  const char* good;   ///< a piece of kGoodYaml ..
  const char* wrong;  ///< .. and what stands in its place
  const char* place;  ///< line:column
  const char* stage;  ///< "stages[4] 'augment.flip'", or "" outside stages
  const char* key;    ///< the parameter or setting; "" where the stage as a whole is meant
  std::vector<const char*> phrases;
};

// clang-format off
const WrongConfig kWrongConfigs[] = {
    {"seed: 1", "seed: -1", "2:7", "", "seed", {"seed is '-1'", "expected a whole number from 0 to 18446744073709551615"}},
    {"seed: 1", "seed: one", "2:7", "", "seed", {"seed is 'one', which is not a whole number", "expected a whole number from 0 to 18446744073709551615"}},
    {"seed: 1", "seed: 18446744073709551616", "2:7", "", "seed", {"seed is '18446744073709551616', which does not fit into 64 bits", "expected a whole number from 0 to 18446744073709551615"}},
    {"seed: 1", "seed: \"1\"", "2:7", "", "seed", {"seed is '1' in quotes", "expected a whole number from 0 to 18446744073709551615"}},
    {"seed: 1", "seed: 010", "2:7", "", "seed", {"seed is '010', which has a leading zero, which some readers take for octal", "write 10", "expected a whole number from 0 to 18446744073709551615"}},
    {"seed: 1", "sead: 1", "2:1", "", "sead", {"unknown key 'sead'", "did you mean 'seed'?"}},
    {"seed: 1", "threads: 1", "2:1", "", "threads", {"unknown key 'threads'", "it belongs below `run:`"}},
    {"name: aircraft", "name: air/craft", "1:7", "", "name", {"name = 'air/craft' can't be part of a file name", "use letters, digits, '_', '-' and '.', at most 100"}},
    {"name: aircraft", "name: [a]", "1:7", "", "name", {"name is a list", "expected a text"}},
    {"plugins: [augment_flip, augment_affine]", "plugins: augment_flip", "3:10", "", "plugins", {"plugins is 'augment_flip'", "expected a list of names, such as [augment_flip]"}},
    {"plugins: [augment_flip, augment_affine]", "plugins: [augment_flip, augment_flip]", "3:25", "", "plugins[1]", {"plugins[1] = 'augment_flip' is there twice"}},
    {"plugins: [augment_flip, augment_affine]", "plugins: [augment_flip, {a: 1}]", "3:25", "", "plugins[1]", {"plugins[1] is a map", "expected a name or a file"}},
    {"split: trainval, max_rejects: 5", "split: trianval", "5:46", "stages[0] 'source.fgvc'", "split", {"split = trianval is not one of train, val, trainval, test", "did you mean 'trainval'?"}},
    {"split: trainval, max_rejects: 5", "split: 3", "5:46", "stages[0] 'source.fgvc'", "split", {"split = \"3\" is not one of train, val, trainval, test"}},
    {"root: ../data, ", "", "5:11", "stages[0] 'source.fgvc'", "root", {"the parameter 'root' is missing (folder of the data set)"}},
    {"root: ../data", "root: \"\"", "5:30", "stages[0] 'source.fgvc'", "root", {"root is empty", "expected a path"}},
    {"root: ../data", "root: [a]", "5:30", "stages[0] 'source.fgvc'", "root", {"root is a list", "expected a path"}},
    {"root: ../data", "root: $GP_TEST_UNSET", "5:30", "stages[0] 'source.fgvc'", "root", {"root = $GP_TEST_UNSET needs the environment variable GP_TEST_UNSET, which is not set", "set it, or write ${GP_TEST_UNSET:-DEFAULT}"}},
    {"max_rejects: 5", "max_rejects: -5", "5:69", "stages[0] 'source.fgvc'", "max_rejects", {"max_rejects = -5 is neither a whole number nor a share such as 10%"}},
    {"max_rejects: 5", "max_rejects: 101%", "5:69", "stages[0] 'source.fgvc'", "max_rejects", {"max_rejects = 101% is neither a whole number nor a share such as 10%"}},
    {"max_rejects: 5", "on_error: ignore", "5:66", "stages[0] 'source.fgvc'", "on_error", {"on_error = ignore is not one of stop, skip"}},
    {"max_rejects: 5", "limit: 1.5", "5:63", "stages[0] 'source.fgvc'", "limit", {"limit = 1.5 is not a whole number"}},
    {"max_rejects: 5", "limit: 1e3", "5:63", "stages[0] 'source.fgvc'", "limit", {"limit = 1e3 is not written as a whole number", "write 1000"}},
    {"max_rejects: 5", "limit: 0x10", "5:63", "stages[0] 'source.fgvc'", "limit", {"limit = 0x10 is not a decimal number", "write it with digits 0 to 9"}},
    {"max_rejects: 5", "limit: 1_000", "5:63", "stages[0] 'source.fgvc'", "limit", {"limit = 1_000 has grouped digits", "write 1000"}},
    {"max_rejects: 5", "limit: -1", "5:63", "stages[0] 'source.fgvc'", "limit", {"limit = -1 is outside [0, 1000000]"}},
    {"max_rejects: 5", "weights: 0.5", "5:65", "stages[0] 'source.fgvc'", "weights", {"weights is '0.5'", "expected a list of numbers, such as [0.5, 1]"}},
    {"max_rejects: 5", "weights: [1, x]", "5:69", "stages[0] 'source.fgvc'", "weights[1]", {"weights[1] = x is not a number"}},
    {"max_rejects: 5", "weights: [1, -1]", "5:69", "stages[0] 'source.fgvc'", "weights[1]", {"weights[1] = -1 is less than 0, the smallest that is allowed"}},
    {"max_rejects: 5", "shuffle: yes", "5:65", "stages[0] 'source.fgvc'", "shuffle", {"shuffle = yes is not true or false", "write true"}},
    {"max_rejects: 5", "shuffle: \"true\"", "5:65", "stages[0] 'source.fgvc'", "shuffle", {"shuffle = \"true\" is a text, because of its quotes", "write true"}},
    {"max_rejects: 5", "label:", "5:62", "stages[0] 'source.fgvc'", "label", {"label has no value", "write \"\" for an empty text"}},
    {"{use: image.decode}", "{use: image.decoder}", "6:11", "stages[1]", "", {"unknown stage 'image.decoder'", "did you mean 'image.decode'?"}},
    {"{use: image.decode}", "{image.decode}", "6:5", "stages[1]", "", {"has no 'use'", "expected {use: NAME, ...}"}},
    {"{use: image.decode}", "image.decode", "6:5", "stages[1]", "", {"is 'image.decode'", "expected a map: {use: image.decode}"}},
    {"{use: image.decode}", "{use: [image.decode]}", "6:11", "stages[1]", "use", {"use is a list", "expected a stage's name"}},
    {"{use: image.decode}", "{use: image.decode, quality: 3}", "6:25", "stages[1] 'image.decode'", "quality", {"unknown parameter 'quality'", "it takes none"}},
    {"{use: image.decode}", "{use: image.decode, name: a/b}", "6:31", "stages[1] 'a/b'", "name", {"name = 'a/b' can't be an address", "use letters, digits, '_', '-' and '.'"}},
    {"{use: image.decode}", "{use: image.decode, name: image.crop}", "7:11", "stages[2] 'image.crop'", "", {"the address 'image.crop' is that of stages[1] too", "give one of them a `name:` of its own"}},
    {"bottom: 20", "bottom: 20, bottom: 30", "7:35", "", "bottom", {"the key 'bottom' is there twice", "first in line 7"}},
    {"bottom: 20", "bottom: 20.5", "7:31", "stages[2] 'image.crop'", "bottom", {"bottom = 20.5 is not a whole number"}},
    {"bottom: 20", "bottom: 70000", "7:31", "stages[2] 'image.crop'", "bottom", {"bottom = 70000 is outside [0, 65535]"}},
    {"bottom: 20", "botom: 20", "7:23", "stages[2] 'image.crop'", "botom", {"unknown parameter 'botom'", "did you mean 'bottom'?"}},
    {"size: 128}", "size: 0}", "8:31", "stages[3] 'image.resize'", "size", {"size = 0 is outside [1, 4096]"}},
    {"size: 128}", "size: 128, fit: sqash}", "8:41", "stages[3] 'image.resize'", "fit", {"fit = sqash is not one of squash, crop, pad", "did you mean 'squash'?"}},
    {"p: 0.5}", "p: 1.5}", "9:28", "stages[4] 'augment.flip'", "p", {"p = 1.5 is outside [0, 1]"}},
    {"p: 0.5}", "p: .nan}", "9:28", "stages[4] 'augment.flip'", "p", {"p = .nan is not a finite number"}},
    {"p: 0.5}", "p: 50%}", "9:28", "stages[4] 'augment.flip'", "p", {"p = 50% is not a number", "write 0.5"}},
    {"p: 0.5}", "p: 0,5}", "9:30", "stages[4] 'augment.flip'", "5", {"unknown parameter '5'", "it takes p"}},
    {"p: 0.5}", "p: \"0.5\"}", "9:28", "stages[4] 'augment.flip'", "p", {"p = \"0.5\" is a text, because of its quotes", "write 0.5"}},
    {"p: 0.5}", "p: true}", "9:28", "stages[4] 'augment.flip'", "p", {"p = true is not a number"}},
    {"p: 0.5}", "p: {a: 1}}", "9:28", "stages[4] 'augment.flip'", "p", {"p is a map", "expected a number"}},
    {"p: 0.5}", "p: }", "9:28", "stages[4] 'augment.flip'", "p", {"p has no value", "expected a number"}},
    {"{use: augment.flip, p: 0.5}", "{use: augment.flop, p: 0.5}", "9:11", "stages[4]", "", {"unknown stage 'augment.flop'", "did you mean 'augment.flip'? Or is its plugin missing from `plugins:`?"}},
    {"{use: augment.flip, p: 0.5}", "{use: augment.one_of}", "9:11", "stages[4] 'augment.one_of'", "stages", {"the parameter 'stages' is missing (what to choose from", "each may have a `weight` (default 1))"}},
    {"{use: augment.flip, p: 0.5}", "{use: augment.one_of, stages: []}", "9:35", "stages[4] 'augment.one_of'", "stages", {"stages is an empty list", "expected a list of stages, such as [{use: augment.flip}]"}},
    {"{use: augment.flip, p: 0.5}", "{use: augment.one_of, stages: {use: augment.flip}}", "9:35", "stages[4] 'augment.one_of'", "stages", {"stages is a map", "expected a list of stages, such as [{use: augment.flip}]"}},
    {"{use: augment.flip, p: 0.5}", "{use: augment.one_of, stages: [{use: augment.flip, p: 2}]}", "9:59", "stages[4].stages[0] 'augment.one_of.augment.flip'", "p", {"p = 2 is outside [0, 1]"}},
    {"{use: augment.flip, p: 0.5}", "{use: augment.one_of, stages: [{use: augment.flip, weight: -1}]}", "9:64", "stages[4].stages[0] 'augment.one_of.augment.flip'", "weight", {"weight = -1 is outside [0, 1000000000]"}},
    {"{use: augment.flip, p: 0.5}", "{use: augment.one_of, stages: [{use: augment.flip, weight: 0}]}", "9:11", "stages[4] 'augment.one_of'", "", {"the weights of its stages are all 0", "at least one must be greater"}},
    {"{use: augment.flip, p: 0.5}", "{use: augment.one_of, stages: [{use: image.decode}]}", "9:42", "stages[4].stages[0] 'augment.one_of.image.decode'", "", {"turns bytes into image", "augment.one_of chooses among stages that turn image into image"}},
    {"{use: augment.flip, p: 0.5}", "{use: augment.one_of, stages: [{use: augment.flip}, {use: augment.flip}]}", "9:63", "stages[4].stages[1] 'augment.one_of.augment.flip'", "", {"the address 'augment.one_of.augment.flip' is that of stages[4].stages[0] too", "give one of them a `name:` of its own"}},
    {"{use: augment.flip, p: 0.5}", "{use: augment.flip, weight: 2}", "9:25", "stages[4] 'augment.flip'", "weight", {"unknown parameter 'weight'", "it takes p"}},
    {"{use: augment.flip, p: 0.5}", "{change: augment.flip, p: 0.5}", "9:5", "stages[4]", "", {"changes a stage, which only a file with a `base:` can"}},
    {"rotate: 1e1", "rotate: 181", "13:13", "stages[6] 'augment.affine'", "rotate", {"rotate = 181 is outside [0, 180]"}},
    {"rotate: 1e1", "\\trotate: 10", "13:5", "stages[6] 'augment.affine'", "\\trotate", {"unknown parameter '\\trotate'", "did you mean 'rotate'?"}},
    {"rotate: 1e1", " rotate: 10", "13:12", "", "", {"not valid YAML: a ':' where none can stand", "check the indentation, and put texts that hold ': ' in quotes"}},
    {"{use: batch, size: 64}", "{use: batch, size: 0}", "14:24", "stages[7] 'batch'", "size", {"size = 0 is outside [1, 16384]"}},
    {"{use: batch, size: 64}", "{use: batch, size: 64, last: never}", "14:34", "stages[7] 'batch'", "last", {"last = never is not one of drop, keep"}},
    {"{use: batch, size: 64}", "{use: batch, size: 300}", "17:68", "", "max_in_flight", {"run: max_in_flight = 512 is less than batch size 300 * (prefetch 2 + 1) = 900", "write run: {max_in_flight: 900} or more, or make the batch smaller"}},
    {"{use: batch, size: 64}", "{use: batch, size: 64}\n  - {use: batch, name: again}", "15:11", "stages[8] 'again'", "", {"takes image, but stages[7] 'batch' gives batch", "batches are made once: remove one of the two"}},
    {"  - {use: batch, size: 64}\n", "", "14:11", "stages[7] 'train.dcgan'", "", {"takes batch, but stages[6] 'augment.affine' gives image", "insert batch between them"}},
    {"learning_rate: 2.0e-4", "learning_rate: 2", "15:52", "stages[8] 'train.dcgan'", "learning_rate", {"learning_rate = 2 is outside [0, 1]"}},
    {"learning_rate: 2.0e-4", "learn_rate: 2.0e-4", "15:37", "stages[8] 'train.dcgan'", "learn_rate", {"unknown parameter 'learn_rate'", "did you mean 'learning_rate'?"}},
    {"epochs: 200", "epochs: 2e2", "15:32", "stages[8] 'train.dcgan'", "epochs", {"epochs = 2e2 is not written as a whole number", "write 200"}},
    {"epochs: 200", "epochs: 0", "15:32", "stages[8] 'train.dcgan'", "epochs", {"epochs = 0 is outside [1, 1000000]"}},
    {"reference: {split: trainval}", "reference: trainval", "16:51", "stages[9] 'evaluate.quality'", "reference", {"reference is 'trainval'", "expected a map of parameters, such as {split: test}"}},
    {"reference: {split: trainval}", "reference: {splitt: trainval}", "16:52", "stages[9] 'evaluate.quality'", "reference.splitt", {"unknown parameter 'reference.splitt'", "the source has none called so", "did you mean 'split'?"}},
    {"reference: {split: trainval}", "reference: {split: training}", "16:59", "stages[9] 'evaluate.quality'", "reference.split", {"reference.split = training is not one of train, val, trainval, test"}},
    {"held_out: {split: test}", "held_out: {fraction: 1.5}", "16:91", "stages[9] 'evaluate.quality'", "held_out.fraction", {"held_out.fraction = 1.5 is outside [0, 1]"}},
    {"every: 10", "every: 0", "16:36", "stages[9] 'evaluate.quality'", "every", {"every = 0 is less than 1, the smallest that is allowed"}},
    {"device: auto", "device: tpu", "17:15", "", "device", {"run: device = tpu is not one of auto, cpu, cuda, cuda:N"}},
    {"precision: auto", "precision: fp16", "17:32", "", "precision", {"run: precision = fp16 is not one of auto, fp32, bf16"}},
    {"threads: auto", "threads: 0", "17:47", "", "threads", {"run: threads = 0 is outside [1, 512]"}},
    {"threads: auto", "threads: many", "17:47", "", "threads", {"run: threads = many is not a whole number"}},
    {"max_in_flight: 512", "max_in_flight: 100", "17:68", "", "max_in_flight", {"run: max_in_flight = 100 is less than batch size 64 * (prefetch 2 + 1) = 192", "write run: {max_in_flight: 192} or more, or make the batch smaller"}},
    {"prefetch: 2", "prefetch: 100", "17:83", "", "prefetch", {"run: prefetch = 100 is outside [0, 64]"}},
    {"prefetch: 2", "prefech: 2", "17:73", "", "prefech", {"run: unknown key 'prefech'", "did you mean 'prefetch'?"}},
    {"run: {device", "run: [device", "17:84", "", "", {"not valid YAML: this bracket closes nothing"}},
    {"  - {use: source.fgvc, root: ../data, split: trainval, max_rejects: 5}\n", "", "5:11", "stages[0] 'image.decode'", "", {"takes bytes", "the first stage must be a source, such as source.folder"}},
    {"  - {use: image.decode}\n", "", "6:11", "stages[1] 'image.crop'", "", {"takes image, but stages[0] 'source.fgvc' gives bytes", "insert image.decode between them"}},
};
// clang-format on

std::string error_of(const WrongConfig& wrong) {
  static const StageRegistry kRegistry = fake_registry();
  std::string yaml = kGoodYaml;
  const auto at = yaml.find(wrong.good);
  EXPECT_NE(at, std::string::npos) << wrong.good;
  yaml.replace(at, std::string(wrong.good).size(), wrong.wrong);
  try {
    check_config(ConfigFile::parse(yaml, "a.yaml"), kRegistry);
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kUsage);
    return error.what();
  }
  return "no error";
}

/// "a.yaml:LINE:COLUMN: STAGE: the rest", where the stage may be missing. (std::regex would do, but
/// GCC 12 warns about its inside when the sanitizers are on.)
struct Message {
  std::string place, stage, rest;
};
Message parse(const std::string& error) {
  const std::string file = "a.yaml:";
  EXPECT_TRUE(error.starts_with(file));
  const std::size_t end = error.find(": ");
  Message message{error.substr(file.size(), end - file.size()), "", error.substr(end + 2)};
  std::string& rest = message.rest;
  std::size_t at = 0;
  while (rest.compare(at, 7, "stages[") == 0) {
    at = rest.find(']', at) + 1;
    if (rest[at] != '.') break;
    ++at;
  }
  if (at == 0) return message;
  if (rest.compare(at, 2, " '") == 0) at = rest.find('\'', at + 2) + 1;
  message.stage = rest.substr(0, at);
  if (rest[at] == ':') ++at;
  EXPECT_EQ(rest[at], ' ');
  rest.erase(0, at + 1);
  return message;
}

TEST(WrongConfigs, AreAtLeastSixty) { EXPECT_GE(std::size(kWrongConfigs), 60U); }

TEST(WrongConfigs, OneMessageAtTheRightPlace) {
  for (const WrongConfig& wrong : kWrongConfigs) {
    const std::string error = error_of(wrong);
    SCOPED_TRACE(std::string(wrong.wrong) + "\n" + error);
    ASSERT_EQ(error.find('\n'), std::string::npos);  // a single message
    const Message message = parse(error);
    EXPECT_EQ(message.place, wrong.place);
    EXPECT_EQ(message.stage, wrong.stage);
    const std::string& rest = message.rest;
    const std::string key = wrong.key;
    EXPECT_TRUE(key.empty() || rest.starts_with(key + " ") ||
                rest.starts_with("run: " + key + " ") ||
                rest.find("'" + key + "'") != std::string::npos);
    for (const char* phrase : wrong.phrases)
      EXPECT_NE(rest.find(phrase), std::string::npos) << phrase;
  }
}

}  // namespace
}  // namespace gp
