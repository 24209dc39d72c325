// The stepping console, on small computations and on a step of MoCo.
#include "debug/console.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "autograd/ops/pointwise.h"
#include "debug/moco_step.h"
#include "moco/checkpoint.h"
#include "nn/layers.h"
#include "tensor/backend.h"

namespace mocograd {
namespace {

struct Session {
  std::string text;
  int64_t errors = 0;
  bool went_on = false;  // to a next step

  bool has(const std::string& part) const { return text.find(part) != std::string::npos; }
  int count(const std::string& part) const {
    int found = 0;
    for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1))
      ++found;
    return found;
  }
};

Session run(const std::vector<DebuggedStep>& steps, const std::string& commands) {
  std::istringstream script(commands);
  std::ostringstream out;
  ScriptInput input(script, out);
  Console console(input, out);
  Session session;
  for (const DebuggedStep& step : steps) session.went_on = console.run(step);
  session.text = out.str();
  session.errors = console.errors();
  return session;
}

Session run(const DebuggedStep& step, const std::string& commands) {
  return run(std::vector{step}, commands);
}

// 3·x, with a backward that is right, or has the wrong sign.
Variable triple(const Variable& x, double sign) {
  const Tensor y = Tensor::empty_like(x.data());
  y.backend().scale(x.data(), 3, y);
  const OperationDetails details{{}, [sign](const auto& in) { return triple(in[0], sign); }};
  return make_result("triple", y, {x}, details, [sign](const Tensor& dy, InputGradients& dx) {
    const Tensor scaled = Tensor::empty_like(dy);
    dy.backend().scale(dy, sign * 3, scaled);
    dx.add(0, scaled);
  });
}

// x + x as a kernel for f32 alone might compute it: the result off by `forward`, the gradient by `backward`.
// In double it is right.
Variable twice(const Variable& x, double forward, double backward) {
  const bool f32 = x.data().dtype() == DType::f32;
  const auto scaled = [](const Tensor& tensor, double factor) {
    const Tensor result = Tensor::empty_like(tensor);
    tensor.backend().scale(tensor, factor, result);
    return result;
  };
  const OperationDetails details{{},
                                 [=](const auto& in) { return twice(in[0], forward, backward); }};
  return make_result(
      "twice", scaled(x.data(), f32 ? 2 + forward : 2), {x}, details,
      [=](const Tensor& dy, InputGradients& dx) { dx.add(0, scaled(dy, f32 ? 2 + backward : 2)); });
}

DebuggedStep step_of_twice(double forward, double backward) {
  DebuggedStep step;
  step.title = "twice";
  step.run = [=] {
    const Variable x(Tensor::from({1, -2, 3}, {3}), true);
    sum(twice(x, forward, backward)).backward();
    return std::string("done");
  };
  step.restore = [] {};
  return step;
}

// sum(triple(relu(x))) with x = 1, 2, … [2, 3]; then x is overwritten with 7.
DebuggedStep small_step(double sign = 1, double first = 1) {
  const Tensor data = Tensor::from({first, 2, 3, 4, 5, 6}, {2, 3});
  const Tensor before = data.clone();
  DebuggedStep step;
  step.title = "small";
  step.given = {{"x", data, /*overwritten=*/true}};
  step.run = [data, sign] {
    const Variable x(data, true);
    const Variable loss = sum(triple(relu(x), sign));
    loss.backward();
    data.fill(7);
    observe_update(Phase::optimizer, "fill", "x", {}, {data});
    return "loss " + std::to_string(static_cast<int>(loss.data().item()));
  };
  step.restore = [data, before] { data.copy_from(before); };
  return step;
}

struct MocoStep {
  Moco moco{{.encoder = {.arch = "resnet20", .width = 2, .dim = 4}, .queue_size = 20}, 0};
  Sgd optimizer{moco.encoder_q(), {}};
  ViewPair views;

  MocoStep() {
    use_fused_operations(false);
    RandomStream random(1, Purpose::test);
    for (Tensor* view : {&views.im_q, &views.im_k}) {
      std::vector<double> values(size_t{8} * 8 * 8 * 3);
      for (double& value : values) value = random.normal();
      *view = Tensor::from(values, {8, 8, 8, 3});
    }
  }
  ~MocoStep() { use_fused_operations(true); }

  DebuggedStep step() {
    DebuggedStep step = moco_step(moco, optimizer, 0.1, views);
    step.title = "moco";
    return step;
  }
};

TEST(Console, NextStopsAfterEachOperation) {
  const Session s = run(small_step(), "next\nn 2\n\nwhere\n");
  EXPECT_TRUE(s.has("%0 forward relu -> [2, 3]"));
  EXPECT_FALSE(s.has("%1 forward"));
  EXPECT_TRUE(s.has("%2 forward sum -> []"));
  EXPECT_TRUE(s.has("%4 backward triple -> [2, 3]"));  // the empty line was n 2 again
  EXPECT_TRUE(s.has("%4 of 7, phase backward"));
  EXPECT_TRUE(s.has("tests/console_test.cpp:"));
  EXPECT_FALSE(s.went_on);
  EXPECT_EQ(s.errors, 0);
}

TEST(Console, ABackwardStopsAtItsFirstOperationAndFinishAtTheEnd) {
  const Session s = run(small_step(), "backward\nfinish\nwhere\n");
  EXPECT_TRUE(s.has("%3 backward sum -> [2, 3]"));
  EXPECT_FALSE(s.has("%4 backward"));
  EXPECT_TRUE(s.has("small is done: loss 63"));
  EXPECT_TRUE(s.has("%6 of 7, phase optimizer"));
}

TEST(Console, BreakpointsStopContinueAndNotFinish) {
  const Session s = run(small_step(),
                        "break op triple\nb phase optimizer\nbreakpoints\nc\nc\nc\ndelete 2\n"
                        "rerun\nc\nfinish\n");
  EXPECT_EQ(s.count("breakpoint 1: op triple"), 5);  // made, listed, two stops, one after rerun
  EXPECT_EQ(s.count("%1 forward triple"), 2);
  EXPECT_EQ(s.count("%4 backward triple"), 1);
  EXPECT_EQ(s.count("%6 optimizer x.fill"), 1);
  EXPECT_EQ(s.errors, 0);
}

TEST(Console, BreakpointsOnNumbers) {
  const Session above = run(small_step(), "break above 17.5\nbreak below -1\nc\n");
  EXPECT_TRUE(above.has("breakpoint 1: above 17.5\n%1 forward triple"));  // 3 · 6
  EXPECT_TRUE(run(small_step(-1), "break below -1\nc\n").has("%4 backward triple"));
  EXPECT_FALSE(run(small_step(), "break nan\nc\n").has("breakpoint 1: nan\n%"));
  EXPECT_TRUE(run(small_step(1, NAN), "break nan\nc\n").has("breakpoint 1: nan\n%0 forward relu"));
}

TEST(Console, ABreakpointOnAModuleMeansWholeNames) {
  MocoStep moco;
  const Session s = run(moco.step(),
                        "break module encoder_q.layer1.1\ncontinue\nwhere\n"
                        "break module encoder_q.layer\n");
  EXPECT_TRUE(s.has("module  encoder_q.layer1.1.conv1"));
  EXPECT_TRUE(s.has("error: break module encoder_q.layer: no operation of this step is that"));
}

TEST(Console, PrintsTensorsBySlices) {
  const Session s =
      run(small_step(),
          "n 2\nprint out\np out [1, :]\np in0[-1, -2:]\np %0 [:, ::2]\np out [0, 1]\n"
          "p out [1::9223372036854775807]\nstats relu.in0\n");
  EXPECT_TRUE(s.has("out [2, 3]\n[[ 3,  6,  9],\n [12, 15, 18]]\n")) << s.text;
  EXPECT_TRUE(s.has("out[1, :] [3]\n[12, 15, 18]\n"));
  EXPECT_TRUE(s.has("in0[-1, -2:] [2]\n[5, 6]\n"));
  EXPECT_TRUE(s.has("%0[:, ::2] [2, 2]\n[[1, 3],\n [4, 6]]\n"));
  EXPECT_TRUE(s.has("out[0, 1] []\n6\n"));
  EXPECT_TRUE(s.has("out[1::9223372036854775807] [1, 3]\n[[12, 15, 18]]\n"));
  EXPECT_TRUE(s.has("relu.in0  f32 [2, 3]  min 1  max 6  mean 3.5"));
}

TEST(Console, WhatWasOverwrittenIsKeptAsItWas) {
  const Session s = run(small_step(), "finish\np %0.in0 [0]\np x [0]\np out [0]\n");
  EXPECT_TRUE(s.has("%0.in0[0] [3]\n[1, 2, 3]"));
  EXPECT_TRUE(s.has("x[0] [3]\n[7, 7, 7]"));
  EXPECT_TRUE(s.has("out[0] [3]\n[7, 7, 7]"));
}

TEST(Console, WalksTheGraph) {
  const Session s = run(small_step(),
                        "n 2\nchildren\ngradient\nparents\nparents %0\nfinish\n"
                        "children triple\ngradient triple\np relu.grad [0]\n"
                        "parents %4\nparents %3\nlist 3\n");
  EXPECT_TRUE(s.has("(moco) children\nnone so far"));
  EXPECT_TRUE(s.has("error: triple: backward has not come there so far"));
  EXPECT_TRUE(s.has("in0  %0 forward relu"));
  EXPECT_TRUE(s.has("(moco) parents %0\n  in0  x\n"));
  EXPECT_TRUE(s.has("(moco) children triple\n  %2 forward sum"));
  EXPECT_TRUE(s.has("triple.grad  f32 [2, 3]  min 1  max 1"));
  EXPECT_TRUE(s.has("relu.grad[0] [3]\n[3, 3, 3]"));
  EXPECT_TRUE(s.has("(moco) parents %4\n  in0  %3 backward sum"));
  EXPECT_TRUE(s.has("(moco) parents %3\n  in0  1, the gradient of the loss\n"));
  EXPECT_TRUE(s.has("   %4 backward triple\n   %5 backward relu\n-> %6 optimizer x.fill\n"))
      << s.text;
}

// What the step reads are copies: of the queue, and of the order of the keys.
TEST(Console, KnowsTheStatesCopies) {
  MocoStep moco;
  moco.views.shuffle = Tensor::from({3, 0, 1, 2, 7, 5, 6, 4}, {8}, {.dtype = DType::i64});
  const Session s = run(moco.step(),
                        "finish\nparents matmul_transposed\nparents gather_rows\n"
                        "parents gather_rows#2\np shuffle [0]\n");
  EXPECT_TRUE(s.has("\n  in1  queue\n")) << s.text;
  EXPECT_TRUE(s.has("\n  in0  im_k\n  in1  shuffle\n")) << s.text;
  EXPECT_TRUE(s.has("\n  in1  unshuffle\n")) << s.text;
  EXPECT_TRUE(s.has("shuffle[0] []\n3\n")) << s.text;
  EXPECT_EQ(s.errors, 0);
}

TEST(Console, CheckTellsARightBackwardFromAWrongOne) {
  const Session right = run(small_step(), "n 2\ncheck\nbackward\ncheck all 6\n");
  EXPECT_TRUE(right.has("check %1 triple passed: 6 elements, worst error"));
  EXPECT_TRUE(right.has("check all passed: 3 operations, 18 elements: relu 1 sum 1 triple 1"));
  EXPECT_EQ(right.errors, 0);

  const Session wrong = run(small_step(-1), "backward\nn\ncheck 2\ncheck relu\ncheck all\n");
  EXPECT_TRUE(wrong.has("check %1 triple FAILED: input 0 [2, 3] at"));
  EXPECT_TRUE(wrong.has("check %0 relu passed"));
  EXPECT_TRUE(wrong.has("after 1 operations that passed"));
  EXPECT_EQ(wrong.count("FAILED"), 2);
  EXPECT_EQ(wrong.errors, 2);
}

// What gradcheck in double cannot see.
TEST(Console, CheckComparesWhatRanWithDouble) {
  const std::string commands = "finish\ncheck twice\ncheck all\n";
  EXPECT_TRUE(run(step_of_twice(1e-4, -1e-4), commands).has("check all passed: 2 operations"));
  const Session forward = run(step_of_twice(1e-2, 0), commands);
  EXPECT_TRUE(forward.has("check %0 twice FAILED: its result in f32 is 0.0374")) << forward.text;
  const Session backward = run(step_of_twice(0, -4), commands);
  EXPECT_TRUE(backward.has("check %0 twice FAILED: the gradient of in0 in f32 is 6.9"))
      << backward.text;
  EXPECT_EQ(backward.errors, 2);
  EXPECT_TRUE(
      run(step_of_twice(0, -4), "n\ncheck\n").has("check %0 twice passed"));  // not there yet
}

TEST(Console, CheckLeavesOutWhatIsNotFinite) {
  const Session s =
      run(small_step(1, std::numeric_limits<double>::quiet_NaN()), "finish\ncheck all\n");
  EXPECT_TRUE(s.has("check %0 relu not checked: in0 is not finite")) << s.text;
  EXPECT_TRUE(s.has("check all passed: 0 operations, 0 elements:; 3 not checked")) << s.text;
  EXPECT_EQ(s.count("FAILED"), 0);
}

// In the key encoder, within NoGrad, in the middle of backward: every operation has a right backward.
TEST(Console, ChecksAStepOfMoco) {
  MocoStep moco;
  const Session s = run(moco.step(),
                        "break op l2_normalize\nc\ncheck\ndelete 1\n"
                        "break op batch_norm\nbackward\nc\ncheck 6\ncheck all 2\n");
  EXPECT_TRUE(s.has("l2_normalize passed: 32 elements")) << s.text;
  EXPECT_TRUE(s.has("batch_norm passed: 1")) << s.text;
  EXPECT_TRUE(s.has("check all passed: ")) << s.text;
  EXPECT_EQ(s.errors, 0) << s.text;
}

// Looking changes nothing, and rerun computes the same once more.
TEST(Console, RerunAndTheRestOfTheStepAreExact) {
  MocoStep debugged, plain;
  const Session s =
      run(debugged.step(), "backward\ncheck all 1\nrerun\nfinish\nrerun\nn 100\nfinish\n");
  const size_t loss = s.text.find("moco is done: ");
  ASSERT_NE(loss, std::string::npos) << s.text;
  EXPECT_EQ(s.count(s.text.substr(loss, s.text.find('\n', loss) - loss)), 2) << s.text;

  plain.moco.train_step(plain.views, plain.optimizer, 0.1);
  const StateDict expected = checkpoint_state(plain.moco, &plain.optimizer);
  const StateDict state = checkpoint_state(debugged.moco, &debugged.optimizer);
  for (const auto& [name, tensor] : expected)
    EXPECT_EQ(state.at(name).to_vector(), tensor.to_vector()) << name;
}

TEST(Console, NextGoesOnInTheNextStep) {
  DebuggedStep first = small_step(), second = small_step();
  first.last = false;
  second.title = "second";
  const Session s = run({first, second}, "finish\nbackward\nwhere\nfinish\nnext\n");
  EXPECT_EQ(s.count("%3 backward sum"), 1);
  EXPECT_TRUE(s.has("second is done"));
  EXPECT_TRUE(s.has("error: the last step is done"));
}

TEST(Console, AStepThatFailsCanBeLookedAt) {
  DebuggedStep step = small_step();
  step.run = [inner = step.run]() -> std::string {
    inner();
    throw Error("the loss is not finite");
  };
  const Session s = run(step, "c\nwhere\n");
  EXPECT_TRUE(s.has("after them it fails: the loss is not finite"));
  EXPECT_TRUE(s.has("error: small ended: the loss is not finite\n(moco) where\n%6 of 7"));
  EXPECT_EQ(s.errors, 1);
}

// Refused before the first operation, and later, when there is one to look at.
const std::string kWrongAtFirst =
    "where\nprint out\nnonsense\ns x\nnext 0\nnext x\nnext 1 2\nwhere [1]\nhelp foo\n"
    "break\nbreak op\nbreak op foo\nbreak phase sideways\nbreak above x\nbreak nan 1\n"
    "break above nan\ndelete\ndelete 7\nnext 99999999999999999999\n";
const std::string kWrongLater =
    "print\nprint foo\nprint in7\nprint %99\nprint %x\nprint %-1\nprint out [\n"
    "print out [0, 0, 0]\nprint out [2]\nprint out [-3]\nprint out [a]\nprint out [::0]\n"
    "print out [::-1]\nprint out [1:2:3:4]\nprint out []\nstats\nshow\nshow out\n"
    "show x 0 0 0\ncheck 0\ncheck 5 5\ncheck foo\ncheck all x\ngradient\nparents %77\n"
    "list 0\nprint out0.in0\nstats in7\n[0]\n";

TEST(Console, WrongCommandsAreOneLineAndNoEnd) {
  const std::string wrong = kWrongAtFirst + kWrongLater;
  const Session s = run(small_step(), kWrongAtFirst + "next\n" + kWrongLater + "p out [0, 0]\n");
  std::istringstream lines(s.text);
  std::string line, command;
  while (std::getline(lines, line)) {
    if (line.starts_with("(moco) ")) command = line.substr(7);
    EXPECT_TRUE(!line.starts_with("error: ") || line.size() < 200) << command;
  }
  EXPECT_EQ(s.errors, std::count(wrong.begin(), wrong.end(), '\n')) << s.text;
  EXPECT_EQ(s.count("\nerror: "), static_cast<int>(s.errors)) << s.text;
  EXPECT_TRUE(s.has("out[0, 0] []\n1\n"));  // still there
}

TEST(Console, EveryCommandIsExplained) {
  std::string script = "help\n";
  for (const std::string& name : Console::command_names()) script += "help " + name + "\n";
  const Session s = run(small_step(), script + "# a comment\nq\n");
  for (const std::string& name : Console::command_names())
    EXPECT_GE(s.count("\n  " + name + " "), 1) << name;
  EXPECT_EQ(s.errors, 0);
}

TEST(Console, ShowsViewsInTheirColours) {
  DebuggedStep step = small_step();
  // One pixel above another: (0.2, 0.4, 0.6) and (0, 0, 0), normalised.
  const Tensor view = Tensor::from({-1.5, -0.5, 0.5, -2.5, -2.5, -2.5}, {1, 2, 1, 3});
  step.given.push_back({"im_q", view, false, true});
  step.normalization = {{0.5f, 0.5f, 0.5f}, {0.2f, 0.2f, 0.2f}};
  const Session s = run(step, "show im_q\nshow im_q 0 2\nshow im_q 1\nshow im_q 0 3\n");
  EXPECT_TRUE(s.has("38;2;51;102;153;48;2;0;0;0m")) << s.text;
  EXPECT_TRUE(s.has("38;2;255;255;255;48;2;0;0;0m")) << s.text;  // channel 2, stretched
  EXPECT_TRUE(s.has("error: show: image 1 is outside of 0 to 0"));
  EXPECT_TRUE(s.has("error: show: channel 3 is outside of 0 to 2"));
}

}  // namespace
}  // namespace mocograd
