#include "stages/data/csv.hpp"

#include <gtest/gtest.h>

#include "pipeline/error.hpp"

namespace gp {
namespace {

using namespace std::string_literals;

/// The rows as "line:field|field", with spaces between rows.
std::string rows(const std::string& text) {
  std::string result;
  for (const CsvRow& row : parse_csv(text, "list.csv")) {
    result += (result.empty() ? "" : " ") + std::to_string(row.line) + ":";
    for (std::size_t i = 0; i < row.fields.size(); ++i) {
      result += (i == 0 ? "" : "|") + row.fields[i];
    }
  }
  return result;
}

std::string error(const std::string& text) {
  try {
    parse_csv(text, "list.csv");
    return "";
  } catch (const DataError& failure) {
    return failure.what();
  }
}

TEST(Csv, LineEndsOfEverySystem) {
  for (const std::string end : {"\n", "\r\n", "\r"}) {
    EXPECT_EQ(rows("a,b" + end + end + "c,d" + end), "1:a|b 3:c|d");
    EXPECT_EQ(rows("a,b" + end + "c,d"), "1:a|b 2:c|d");
  }
  EXPECT_EQ(rows(""), "");
  EXPECT_EQ(rows("\r\n\n"), "");
}

TEST(Csv, EmptyFieldsAndBlanksAreKept) {
  EXPECT_EQ(rows(",a,,b c ,\n,"), "1:|a||b c | 2:|");
  EXPECT_EQ(rows("\"\"\n\"\",\"\""), "1: 2:|");
}

TEST(Csv, QuotedFields) {
  EXPECT_EQ(rows("\"a,1\",\"say \"\"hi\"\"\"\nx,y"), "1:a,1|say \"hi\" 2:x|y");
  EXPECT_EQ(rows("\"two\nlines\r\n\",b\nc,d"), "1:two\nlines\r\n|b 4:c|d");
  EXPECT_EQ(rows("\"\"\"\"\"\""), "1:\"\"");
}

TEST(Csv, ByteOrderMarkAndOtherAlphabets) {
  EXPECT_EQ(rows("\xEF\xBB\xBF"
                 "file,label\ncaf\xC3\xA9,\xF0\x9F\x9B\xA9"),
            "1:file|label 2:caf\xC3\xA9|\xF0\x9F\x9B\xA9");
  EXPECT_EQ(rows("\xEF\xBB\xBF\"a\",b"), "1:a|b");
  EXPECT_EQ(error("\xFF\xFE"
                  "a\0,\0"s),
            "list.csv:1: this is UTF-16; save the file as UTF-8");
  EXPECT_EQ(error("a,b\nc,caf\xE9\n"),
            "list.csv:2: text that is not UTF-8; save the file as UTF-8");
  EXPECT_EQ(error("a,b\n\nc\0d,e"s), "list.csv:3: text that is not UTF-8; save the file as UTF-8");
}

TEST(Csv, BrokenQuotesAreErrorsWithTheirLine) {
  EXPECT_EQ(error("a,b\nc,\"d\ne,f\n"), "list.csv:2: a quote is opened here and never closed");
  EXPECT_EQ(error("a,\"b\" c\n"),
            "list.csv:1: text behind a closing quote; expected a comma or the end of the line");
  EXPECT_EQ(error("a,\"b\nc\"d\n"),
            "list.csv:2: text behind a closing quote; expected a comma or the end of the line");
  EXPECT_EQ(error("\n5\" disk,b\n"),
            "list.csv:2: a quote within '5\" disk'; put the field in quotes and double those "
            "within");
}

}  // namespace
}  // namespace gp
