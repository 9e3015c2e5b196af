// Runs a folder that `trtcross convert --format engine` wrote, with TensorRT-RTX's own API, and compares the outputs with
// the golden outputs in it.
//
//     run_engines FOLDER
//
// Exit code 0: every output is within the tolerance; 6: one is not; 1: anything else.
// The program runs engines, chooses the optimization profile by the sizes of the call, and keeps state. Sizes among the
// outputs, views that change a shape, and casts are left to the reader.
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>

#include "dtypes.hpp"
#include "json.hpp"

namespace fs = std::filesystem;
using Bytes = std::vector<char>;

struct Logger : nvinfer1::ILogger {
    void log(Severity severity, char const* text) noexcept override {
        if (severity <= Severity::kWARNING) std::cerr << "TensorRT: " << text << "\n";
    }
};

void cuda(cudaError_t error) {
    if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

template <typename T> std::unique_ptr<T> made(T* object, char const* what) {
    return object ? std::unique_ptr<T>(object) : throw std::runtime_error(std::string("TensorRT gives no ") + what);
}

Bytes read(fs::path const& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + path.string());
    return Bytes(std::istreambuf_iterator<char>(file), {});
}

// Owns memory on the GPU.
struct Buffer {
    void* address = nullptr;
    size_t size = 0;
    explicit Buffer(size_t bytes) : size(bytes) { cuda(cudaMalloc(&address, bytes ? bytes : 1)); }
    Buffer(Buffer const&) = delete;
    ~Buffer() { cudaFree(address); }
};

struct Value {
    std::shared_ptr<Buffer> buffer;
    nvinfer1::Dims shape{};
};

size_t elements(nvinfer1::Dims const& shape) {
    size_t count = 1;
    for (int i = 0; i < shape.nbDims; ++i) count *= static_cast<size_t>(shape.d[i]);
    return count;
}

Value load(fs::path const& folder, Json const& file) {
    Bytes data = read(folder / file["file"].text);
    Value value{std::make_shared<Buffer>(data.size())};
    cuda(cudaMemcpy(value.buffer->address, data.data(), data.size(), cudaMemcpyHostToDevice));
    value.shape.nbDims = static_cast<int>(file["shape"].items.size());
    for (int i = 0; i < value.shape.nbDims; ++i) value.shape.d[i] = file["shape"].items[i].whole();
    return value;
}

// An engine and its execution context.
struct Engine {
    Json const& facts;
    std::unique_ptr<nvinfer1::ICudaEngine> engine;
    std::unique_ptr<nvinfer1::IExecutionContext> context;

    Engine(nvinfer1::IRuntime& runtime, fs::path const& folder, Json const& entry) : facts(entry) {
        Bytes plan = read(folder / entry["file"].text);
        engine = made(runtime.deserializeCudaEngine(plan.data(), plan.size()), "engine: is it this release's?");
        context = made(engine->createExecutionContext(), "execution context");
    }

    // Returns the first optimization profile that allows the inputs' sizes.
    int profileOf(Json const& step, std::map<std::string, Value> const& values) const {
        auto const& profiles = facts["profiles"].items;
        for (size_t number = 0; number < profiles.size(); ++number) {
            bool fits = true;
            for (size_t i = 0; i < step["inputs"].items.size(); ++i) {
                auto found = profiles[number].members.find(facts["inputs"].items[i]["name"].text);
                if (found == profiles[number].members.end()) continue;  // its sizes never vary
                Json const& range = found->second;
                nvinfer1::Dims const& shape = values.at(step["inputs"].items[i].text).shape;
                for (size_t d = 0; d < range["min"].items.size(); ++d)
                    fits &= range["min"].items[d].whole() <= shape.d[d] && shape.d[d] <= range["max"].items[d].whole();
            }
            if (fits) return static_cast<int>(number);
        }
        return 0;
    }

    // Runs the engine; a step lists its values in the order of the engine's bindings.
    void run(Json const& step, std::map<std::string, Value>& values, cudaStream_t stream) {
        if (engine->getNbOptimizationProfiles() > 1 && !context->setOptimizationProfileAsync(profileOf(step, values), stream))
            throw std::runtime_error("the engine does not take the profile");
        for (size_t i = 0; i < step["inputs"].items.size(); ++i) {
            std::string const& name = facts["inputs"].items[i]["name"].text;
            Value const& value = values.at(step["inputs"].items[i].text);
            if (!context->setInputShape(name.c_str(), value.shape) ||
                !context->setInputTensorAddress(name.c_str(), value.buffer->address))
                throw std::runtime_error("the engine refuses the input " + name);
        }
        for (size_t i = 0; i < step["outputs"].items.size(); ++i) {
            std::string const& name = facts["outputs"].items[i]["name"].text;
            Value value{nullptr, context->getTensorShape(name.c_str())};
            for (Json const& alias : facts["aliased_io"].items)  // it must be at its input's address
                if (alias["output"].text == name) value.buffer = values.at(inputOf(step, alias["input"].text)).buffer;
            if (!value.buffer)
                value.buffer = std::make_shared<Buffer>(
                    elements(value.shape) * elementSize(facts["outputs"].items[i]["dtype"].text));
            context->setTensorAddress(name.c_str(), value.buffer->address);
            values[step["outputs"].items[i].text] = value;
        }
        if (!context->enqueueV3(stream)) throw std::runtime_error("the engine does not run");
    }

    std::string const& inputOf(Json const& step, std::string const& binding) const {
        for (size_t i = 0;; ++i)
            if (facts["inputs"].items.at(i)["name"].text == binding) return step["inputs"].items[i].text;
    }
};
bool compare(fs::path const& folder, Json const& golden, Value const& value, Json const& tolerance) {
    Bytes want = read(folder / golden["file"].text), got(want.size());
    if (value.buffer->size != want.size()) throw std::runtime_error(golden["name"].text + " has a different size");
    cuda(cudaMemcpy(got.data(), value.buffer->address, got.size(), cudaMemcpyDeviceToHost));
    std::string const& dtype = golden["dtype"].text;
    double error = 0, norm = 0, worst = 0, peak = 0;
    for (size_t i = 0, count = elements(value.shape); i < count; ++i) {
        double b = element(want.data(), dtype, i), d = std::abs(element(got.data(), dtype, i) - b);
        if (std::isnan(d)) d = INFINITY;
        error += d * d, norm += b * b, worst = std::max(worst, d), peak = std::max(peak, std::abs(b));
    }
    double relative = error == 0 ? 0 : std::sqrt(error / norm), most = worst == 0 ? 0 : worst / peak;
    bool within = relative <= tolerance[dtype]["relative_l2"].number && most <= tolerance[dtype]["max_relative"].number;
    std::printf("%s: %s, relative error %.2e, max %.2e\n", golden["name"].text.c_str(), within ? "ok" : "WRONG", relative, most);
    return within;
}

int run(fs::path const& folder) {
    auto now = [] { return std::chrono::steady_clock::now(); };
    auto ms = [](auto span) { return std::chrono::duration<double, std::milli>(span).count(); };
    auto start = now();
    Bytes text = read(folder / "engines.json");
    Json const facts = Json::parse(std::string(text.begin(), text.end()));
    Logger logger;
    auto runtime = made(nvinfer1::createInferRuntime(logger), "runtime: are the headers this release's?");
    std::vector<Engine> engines;
    for (Json const& entry : facts["engines"].items) engines.emplace_back(*runtime, folder, entry);
    cudaStream_t stream;
    cuda(cudaStreamCreate(&stream));
    std::printf("%s: %zu engine(s), ready after %.0f ms\n", facts["model"].text.c_str(), engines.size(), ms(now() - start));
    bool within = true;
    std::map<std::string, Value> values;
    for (Json const& state : facts["state"].items) values[state["value"].text] = load(folder, state);
    for (Json const& sample : facts["golden"].items) {
        for (Json const& input : sample["inputs"].items) values[input["value"].text] = load(folder, input);
        for (int call = 0; call < (facts["state"].items.empty() ? 3 : 1); ++call) {
            auto called = now();
            for (Json const& step : facts["steps"].items) {
                std::string const& kind = step["kind"].text;
                if (kind == "engine") engines.at(step["engine"].whole()).run(step, values, stream);
                if (kind == "view" && step["operator"].text == "same")
                    values[step["outputs"].items[0].text] = values.at(step["inputs"].items[0].text);
                else if (kind == "view" || kind == "cast")
                    throw std::runtime_error("this program has no step of the kind " + kind);
            }
            cuda(cudaStreamSynchronize(stream));
            std::printf("call %d: %.3f ms\n", call + 1, ms(now() - called));
        }
        for (Json const& output : sample["outputs"].items)
            within &= compare(folder, output, values.at(output["value"].text), facts["tolerance"]);
        for (Json const& state : facts["state"].items)
            if (!state["update"].text.empty()) values[state["value"].text] = values.at(state["update"].text);
    }
    return within ? 0 : 6;
}

int main(int count, char** arguments) try {
    if (count != 2) throw std::runtime_error("usage: run_engines FOLDER");
    return run(arguments[1]);
} catch (std::exception const& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
}
