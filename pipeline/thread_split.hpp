#pragma once

#include <string>

namespace gp {

class Pipeline;
class Log;
struct RunSettings;

/// Threads of one run: for the graph, and for the end stage's own pool.
struct ThreadSplit {
  int data = 1;
  int end = 1;
};

/// Images a second that calibration measured; 0: not measured.
struct Calibration {
  double data = 0;     ///< the data path on one thread
  double trainer = 0;  ///< the trainer on the whole budget
};

/// How the budget `threads` (0: all processors) is split where nothing was measured. A sink gives
/// everything to the graph; a trainer on a GPU leaves all but one to the graph. A trainer on the
/// CPU uses all of them, and the graph an eighth beside it: the data thread sleeps most of the time
/// there, and a processor set aside for it would stand idle.
ThreadSplit split_threads(int threads, bool end_is_sink, bool on_gpu);

/// The split of `total` threads between a graph and a trainer on the CPU whose rates were measured.
/// Data that take less than an eighth of the budget are made beside the trainer, which keeps all of
/// it; more expensive ones get the share of the threads that they need.
ThreadSplit split_by_rates(int total, const Calibration& rates);

/// The split of a run, decided once: `data_threads` where it is set; where both are auto and a
/// trainer runs on the CPU, by a short calibration, told in `rates`; else split_threads.
ThreadSplit choose_threads(const Pipeline& pipeline, Log& log, Calibration* rates = nullptr);

/// Whether the configuration's device means a GPU (`auto`: where an NVIDIA driver is loaded).
bool uses_gpu(const std::string& device);

}  // namespace gp
