// The elements of tensors, by the names of their dtypes in engines.json.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

inline std::size_t elementSize(std::string const& dtype) {
    if (dtype == "int64") return 8;
    return dtype.find("32") != dtype.npos ? 4 : dtype.find("16") != dtype.npos ? 2 : 1;
}

// Converts one element to double.
inline double element(char const* data, std::string const& dtype, std::size_t index) {
    auto as = [&](auto zero) { std::memcpy(&zero, data + index * sizeof zero, sizeof zero); return zero; };
    if (dtype == "float32") return as(float{});
    if (dtype == "int64") return static_cast<double>(as(std::int64_t{}));
    if (dtype == "int32") return as(std::int32_t{});
    if (dtype == "bool" || dtype == "uint8") return as(std::uint8_t{});
    if (dtype == "int8") return as(std::int8_t{});
    std::uint16_t bits = as(std::uint16_t{});
    if (dtype == "bfloat16") {
        std::uint16_t wide[2] = {0, bits};
        float value;
        std::memcpy(&value, wide, sizeof value);
        return value;
    }
    if (dtype != "float16") throw std::runtime_error("no elements of " + dtype + " are known here");
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double size = exponent == 31 ? (fraction ? NAN : INFINITY)
                  : exponent ? std::ldexp(1024 + fraction, exponent - 25) : std::ldexp(fraction, -24);
    return bits >> 15 ? -size : size;
}
