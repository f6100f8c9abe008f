// A client that sends exactly what it is told to, right or wrong. No call waits longer than its patience.
#pragma once

#include <poll.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace fathom::test {

constexpr std::chrono::milliseconds kPatience{5000};

struct RawAnswer {
  unsigned status = 0;  // 0: none came
  std::string body{};
  boost::beast::http::fields fields{};  // those of the trailer too
  bool keep_alive = false;

  std::string field(std::string_view name) const {
    const auto value = fields[boost::beast::string_view(name.data(), name.size())];
    return {value.data(), value.size()};
  }
};

class RawClient {
 public:
  // receive_bytes: of the system's buffer; 0: its default.
  explicit RawClient(uint16_t port, int receive_bytes = 0) : socket_(context_) {
    boost::system::error_code ignored;
    socket_.open(boost::asio::ip::tcp::v4(), ignored);
    if (receive_bytes > 0) socket_.set_option(boost::asio::socket_base::receive_buffer_size(receive_bytes), ignored);
    socket_.connect({boost::asio::ip::address_v4::loopback(), port}, ignored);
    socket_.set_option(boost::asio::ip::tcp::no_delay(true), ignored);
  }

  // False: the server has closed.
  bool send(std::string_view bytes) {
    boost::system::error_code error;
    boost::asio::write(socket_, boost::asio::buffer(bytes.data(), bytes.size()), error);
    return !error;
  }

  RawAnswer read(bool head = false, std::chrono::milliseconds patience = kPatience) {
    namespace http = boost::beast::http;
    Timed timed{socket_, std::chrono::steady_clock::now() + patience};
    http::response_parser<http::string_body> parser;
    parser.skip(head);
    parser.body_limit(uint64_t{1} << 30);
    boost::system::error_code error;
    http::read(timed, buffer_, parser, error);
    RawAnswer answer;
    if (error && !(parser.is_header_done() && parser.get().result_int() == 100)) return answer;
    answer.status = parser.get().result_int();
    answer.body = parser.get().body();
    answer.fields = parser.get().base();
    answer.keep_alive = parser.keep_alive();
    return answer;
  }
  RawAnswer ask(std::string_view request) {
    send(request);
    return read();
  }

  // Whether something, or the end, comes within the patience. Nothing is taken.
  bool readable(std::chrono::milliseconds patience = kPatience) {
    pollfd p{socket_.native_handle(), POLLIN, 0};
    return buffer_.size() > 0 || ::poll(&p, 1, static_cast<int>(patience.count())) > 0;
  }
  // What there is now, or comes within the patience; empty: nothing, or the end.
  std::string read_some(size_t most = 65536, std::chrono::milliseconds patience = kPatience) {
    std::string bytes(most, '\0');
    if (buffer_.size() > 0) {
      bytes.resize(boost::asio::buffer_copy(boost::asio::buffer(bytes), buffer_.data()));
      buffer_.consume(bytes.size());
      return bytes;
    }
    Timed timed{socket_, std::chrono::steady_clock::now() + patience};
    boost::system::error_code error;
    bytes.resize(timed.read_some(boost::asio::buffer(bytes), error));
    return bytes;
  }
  std::string read_until(std::string_view text) {
    std::string all;
    while (all.find(text) == std::string::npos) {
      const std::string more = read_some(1);
      if (more.empty()) break;
      all += more;
    }
    return all;
  }

  // Until the server closes; how long it took. More than the patience: it did not.
  std::chrono::milliseconds closed_after(std::chrono::milliseconds patience = kPatience) {
    const auto start = std::chrono::steady_clock::now();
    buffer_.clear();
    Timed timed{socket_, start + patience};
    boost::system::error_code error;
    char bytes[4096];
    while (!error) timed.read_some(boost::asio::buffer(bytes), error);
    if (error == boost::asio::error::timed_out) return patience * 2;
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start);
  }

  void close() {
    boost::system::error_code ignored;
    socket_.close(ignored);
  }

 private:
  // What Beast reads from, with a deadline: a blocking socket of Asio has none.
  struct Timed {
    boost::asio::ip::tcp::socket& socket;
    std::chrono::steady_clock::time_point until;

    template <typename Buffers>
    size_t read_some(const Buffers& buffers, boost::system::error_code& error) {
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now()).count();
      pollfd p{socket.native_handle(), POLLIN, 0};
      if (::poll(&p, 1, static_cast<int>(std::max<int64_t>(left, 0))) <= 0) {
        error = boost::asio::error::timed_out;
        return 0;
      }
      return socket.read_some(buffers, error);
    }
    template <typename Buffers>
    size_t read_some(const Buffers& buffers) {
      boost::system::error_code error;
      const size_t bytes = read_some(buffers, error);
      if (error) throw boost::system::system_error(error);
      return bytes;
    }
  };

  boost::asio::io_context context_;
  boost::asio::ip::tcp::socket socket_;
  boost::beast::flat_buffer buffer_;
};

}  // namespace fathom::test
