#include "pipeline/graph_text.hpp"

#include <cstdio>

#include "pipeline/config_node.hpp"
#include "pipeline/transform_chain.hpp"

namespace gp {
namespace {

using Lines = std::vector<std::string>;

bool is_serial(const StageConfig& stage) {
  if (stage.info->concurrency == Concurrency::kSerial) return true;
  for (const StageConfig& choice : stage.choices) {
    if (is_serial(choice)) return true;
  }
  return false;
}

bool is_end(const StageConfig& stage) {
  return stage.info->out == Kind::kSnapshot || stage.info->out == Kind::kNothing;
}

/// The number with up to three digits, e.g. "0.667".
std::string short_number(double value) {
  char text[16];
  std::snprintf(text, sizeof text, "%.3g", value);
  return text;
}

struct Node {
  std::size_t index = 0;  ///< in the list of stages
  Lines label;
  bool random = false;
};

struct Edge {
  std::size_t from = 0, to = 0;
  std::string label;
  bool credits = false;
};

/// What runs on one thread without handing the sample over; the second member is the title.
struct Task {
  std::vector<Node> nodes;
  std::string title;
};

struct Drawing {
  std::string title;        ///< of the data graph
  std::vector<Task> tasks;  ///< the source and the transforms
  std::vector<Node> batch;  ///< also in the data graph; at most one
  std::vector<Node> ends;   ///< trainer or sink, evaluators
  std::vector<Edge> edges;
};

Node node_of(const Config& config, std::size_t index) {
  const StageConfig& stage = config.stages[index];
  Node node{index, {stage.address}, stage.info->random};
  double weights = 0;
  for (const StageConfig& choice : stage.choices) weights += choice.weight;
  for (const StageConfig& choice : stage.choices) {
    node.label.push_back(short_number(stage.params.real("p") * choice.weight / weights) + " " +
                         choice.address.substr(stage.address.size() + 1));
  }
  return node;
}

Drawing draw(const Config& config) {
  Drawing drawing;
  const std::string in_flight = std::to_string(config.run.max_in_flight);
  drawing.title = "oneTBB flow graph, at most " + in_flight + " samples in flight";
  std::vector<bool> serial;
  std::size_t before = 0;  // the stage whose output flows on
  for (std::size_t i = 0; i < config.stages.size(); ++i) {
    const StageConfig& stage = config.stages[i];
    Node node = node_of(config, i);
    if (i > 0) {
      const StageInfo& giver = *config.stages[before].info;
      std::string label = to_string(giver.out);
      if (giver.out == Kind::kBatch) {
        label +=
            " of " + std::to_string(config.stages[before].params.integer("size")) + ", uint8 NHWC";
      }
      drawing.edges.push_back({before, i, label});
    }
    if (stage.info->in == Kind::kSnapshot) {  // evaluators stand beside each other
      node.label.push_back("between two epochs");
      drawing.ends.push_back(std::move(node));
      continue;
    }
    before = i;
    if (is_end(stage)) {
      node.label.push_back("own thread");
      drawing.ends.push_back(std::move(node));
      drawing.edges.push_back({i, 0, in_flight + " credits", true});
    } else if (stage.info->out == Kind::kBatch) {
      node.label.push_back("in the order of the data");
      drawing.batch.push_back(std::move(node));
    } else if (i > 0) {
      serial.push_back(is_serial(stage));
    }
  }
  // Transforms follow the source, so stage i + 1 is link i.
  for (const TransformChain::Segment& segment : TransformChain::segments(serial)) {
    Task task;
    task.title = segment.serial ? "one sample at a time" : "one task a sample, on any data thread";
    for (int link = segment.first; link < segment.last; ++link) {
      task.nodes.push_back(node_of(config, static_cast<std::size_t>(link + 1)));
    }
    drawing.tasks.push_back(std::move(task));
  }
  return drawing;
}

std::string id(std::size_t index) { return "s" + std::to_string(index); }

std::string dot_node(const Node& node) {
  return id(node.index) + " [label=\"" + joined(node.label, "\\n") + "\"" +
         (node.random ? ", style=dashed" : "") + "];\n";
}

std::string mermaid_node(const Node& node) {
  return id(node.index) + "[\"" + joined(node.label, "<br/>") + "\"]" +
         (node.random ? ":::random" : "") + "\n";
}

}  // namespace

std::string graph_to_dot(const Config& config) {
  const Drawing drawing = draw(config);
  std::string text = "digraph \"" + config.name + "\" {\n  rankdir=LR;\n  node [shape=box];\n";
  text += "  subgraph cluster_data {\n    label=\"" + drawing.title + "\";\n";
  for (std::size_t t = 0; t < drawing.tasks.size(); ++t) {
    text += "    subgraph cluster_task" + std::to_string(t) + " {\n      label=\"" +
            drawing.tasks[t].title + "\";\n";
    for (const Node& node : drawing.tasks[t].nodes) text += "      " + dot_node(node);
    text += "    }\n";
  }
  for (const Node& node : drawing.batch) text += "    " + dot_node(node);
  text += "  }\n";
  for (const Node& node : drawing.ends) text += "  " + dot_node(node);
  for (const Edge& edge : drawing.edges) {
    text += "  " + id(edge.from) + " -> " + id(edge.to) + " [label=\"" + edge.label + "\"" +
            (edge.credits ? ", style=dotted, constraint=false" : "") + "];\n";
  }
  return text + "}\n";
}

std::string graph_to_mermaid(const Config& config) {
  const Drawing drawing = draw(config);
  std::string text = "flowchart LR\n  subgraph data[\"" + drawing.title + "\"]\n";
  for (std::size_t t = 0; t < drawing.tasks.size(); ++t) {
    text += "    subgraph task" + std::to_string(t) + "[\"" + drawing.tasks[t].title + "\"]\n";
    for (const Node& node : drawing.tasks[t].nodes) text += "      " + mermaid_node(node);
    text += "    end\n";
  }
  for (const Node& node : drawing.batch) text += "    " + mermaid_node(node);
  text += "  end\n";
  for (const Node& node : drawing.ends) text += "  " + mermaid_node(node);
  for (const Edge& edge : drawing.edges) {
    text += "  " + id(edge.from) + (edge.credits ? " -.->|\"" : " -->|\"") + edge.label + "\"| " +
            id(edge.to) + "\n";
  }
  return text + "  classDef random stroke-dasharray: 4\n";
}

}  // namespace gp
