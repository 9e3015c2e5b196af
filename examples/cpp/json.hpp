// Parses only the JSON that engines.json contains. Use a full JSON library in your own program.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

struct Json {
    std::string text;                      // of a text
    double number = 0;                     // of a number
    std::vector<Json> items;               // of an array
    std::map<std::string, Json> members;   // of an object

    Json const& operator[](std::string const& name) const {
        auto found = members.find(name);
        if (found == members.end()) throw std::runtime_error("engines.json lacks " + name);
        return found->second;
    }
    std::int64_t whole() const { return static_cast<std::int64_t>(number); }

    static Json parse(std::string const& source) {
        char const* at = source.c_str();
        return value(at);
    }

private:
    static void skip(char const*& at) { while (*at && std::string(" \n\r\t,:").find(*at) != std::string::npos) ++at; }

    static std::string quoted(char const*& at) {
        std::string found;
        for (++at; *at && *at != '"'; ++at) {
            if (*at == '\\' && *++at == 'u') {  // only names have these; an escape beyond ASCII stays as it is written
                found += "\\";
            }
            found += *at;
        }
        if (*at) ++at;
        return found;
    }

    static Json value(char const*& at) {
        Json json;
        skip(at);
        if (*at == '"') json.text = quoted(at);
        else if (*at == '[') {
            for (skip(++at); *at && *at != ']'; skip(at)) json.items.push_back(value(at));
            if (*at) ++at;
        } else if (*at == '{') {
            for (skip(++at); *at && *at != '}'; skip(at)) {
                std::string name = quoted(at);
                json.members[name] = value(at);
            }
            if (*at) ++at;
        } else if (std::string("tfn").find(*at) != std::string::npos) {  // true, false, null
            json.number = *at == 't';
            while (*at >= 'a' && *at <= 'z') ++at;
        } else {
            char* end;
            json.number = std::strtod(at, &end);
            if (end == at) throw std::runtime_error("engines.json cannot be read");
            at = end;
        }
        return json;
    }
};
