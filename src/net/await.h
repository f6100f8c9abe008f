#pragma once

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace fathom {

// co_await f(…, kResult) gives the error beside what else f gives, instead of throwing it.
inline constexpr auto kResult = boost::asio::as_tuple(boost::asio::use_awaitable);

}  // namespace fathom
