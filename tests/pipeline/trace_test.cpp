#include "pipeline/trace.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "pipeline/files.hpp"
#include "tests/support/fake_stages.hpp"
#include "tests/support/temporary_folder.hpp"

namespace gp {
namespace {

using Json = nlohmann::json;

Json written(const Trace& trace) {
  const testing::TemporaryFolder folder;
  trace.write(folder.path() / "trace.json",
              [](std::uint64_t item) { return "item" + std::to_string(item); });
  return Json::parse(read_text(folder.path() / "trace.json"));
}

TEST(Trace, WritesSpansOnTheirThreadsInMicroseconds) {
  Trace trace;
  Trace::Track& track = trace.add_track("worker \"1\"");
  const auto start = Trace::Clock::now();
  track.add(trace.name("image.decode"), start, start + std::chrono::nanoseconds(1500), {7, 2});
  trace.add_track("end").add(trace.name("step"), start, start + std::chrono::milliseconds(2));
  const Json events = written(trace)["traceEvents"];
  ASSERT_EQ(events.size(), 5U);  // the process, two names, two spans
  EXPECT_EQ(events[1]["args"]["name"], "worker \"1\"");
  EXPECT_EQ(events[2]["ph"], "X");
  EXPECT_EQ(events[2]["name"], "image.decode");
  EXPECT_EQ(events[2]["dur"], 1.5);
  EXPECT_EQ(events[2]["args"]["key"], "item7");
  EXPECT_EQ(events[2]["args"]["epoch"], 3);
  EXPECT_EQ(events[4]["dur"], 2000);
  EXPECT_EQ(events[4]["ts"], events[2]["ts"]);
  EXPECT_NE(events[4]["tid"], events[2]["tid"]);
  EXPECT_FALSE(events[4].contains("args"));
}

TEST(Trace, KeepsNoMoreSpansThanItMay) {
  Trace trace(2);
  Trace::Track& track = trace.add_track("worker");
  const auto now = Trace::Clock::now();
  for (int i = 0; i < 2; ++i) track.add(trace.name("stage"), now, now);
  EXPECT_FALSE(trace.full());
  track.add(trace.name("stage"), now, now);
  EXPECT_TRUE(trace.full());
  EXPECT_EQ(written(trace)["traceEvents"].size(), 4U);
}

TEST(Trace, HoldsEachStageOfEachSampleAndTheStepsOfTheEnd) {
  Trace trace;
  {
    testing::FakePipeline pipeline(20, {testing::add_noise, testing::add_noise});
    GraphOptions options;
    options.threads = 2;
    options.batch_size = 5;
    options.max_in_flight = 20;
    options.trace = &trace;
    options.end = "train.fake";
    const auto stream = pipeline.open(options);
    testing::drain(*stream);
  }
  std::map<std::string, std::set<std::string>> keys;
  std::map<std::string, int> spans;
  std::set<std::string> threads;
  const Json file = written(trace);
  for (const Json& event : file["traceEvents"]) {
    if (event["ph"] == "M") {
      threads.insert(event["args"]["name"]);
      continue;
    }
    ++spans[event["name"]];
    if (event.contains("args")) keys[event["name"]].insert(event["args"]["key"].get<std::string>());
  }
  for (const char* stage : {"source.fake", "fake0", "fake1"}) {
    EXPECT_EQ(keys[stage].size(), 20U) << stage;
    EXPECT_EQ(spans[stage], 20) << stage;
  }
  EXPECT_EQ(spans["step"], 4);
  EXPECT_EQ(threads.count("train.fake"), 1U);
  EXPECT_EQ(threads.count("data 1"), 1U);
}

}  // namespace
}  // namespace gp
