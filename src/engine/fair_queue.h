// Who is served next: the highest priority; of equals, the client that was served least; of its own, first come first.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/check.h"

namespace fathom {

// Clients are charged for the work that was done for them (virtual token counters: Sheng et al. 2024, "Fairness in
// serving large language models"). One that comes back after a pause begins at the least charge of those that are
// active: it is not paid for the time in which it asked for nothing. Not thread-safe.
template <typename Item>
class FairQueue {
 public:
  struct Ticket {
    std::string client;
    int64_t priority = 0;
    int64_t arrival = 0;  // rising; an item that is put back keeps its own
  };

  // Before the first item of a request is pushed, and after its last one is done.
  void begin(const std::string& client) {
    const auto least = least_active();
    Account& account = accounts_[client];
    if (account.active++ == 0 && least) account.charge = std::max(account.charge, *least);
  }
  void end(const std::string& client) {
    Account& account = accounts_.at(client);
    FATHOM_CHECK(account.active > 0, "client {} ended more than it began", client);
    if (--account.active > 0) return;
    // Charges only matter beside those of others.
    if (!least_active()) accounts_.clear();
  }
  void charge(const std::string& client, int64_t tokens) { accounts_.at(client).charge += static_cast<double>(tokens); }

  void push(Ticket ticket, std::unique_ptr<Item> item) { waiting_.emplace_back(std::move(ticket), std::move(item)); }
  bool empty() const { return waiting_.empty(); }
  size_t size() const { return waiting_.size(); }

  // The next one, which stays; nullptr when none waits.
  Item* front() {
    const auto it = best();
    return it == waiting_.end() ? nullptr : it->second.get();
  }
  const Ticket& front_ticket() { return best()->first; }
  std::unique_ptr<Item> pop() {
    const auto it = best();
    FATHOM_CHECK(it != waiting_.end(), "nothing waits");
    std::unique_ptr<Item> item = std::move(it->second);
    waiting_.erase(it);
    return item;
  }
  // Takes out all for which which(item) holds.
  template <typename Which>
  std::vector<std::unique_ptr<Item>> remove(const Which& which) {
    std::vector<std::unique_ptr<Item>> out;
    std::erase_if(waiting_, [&](auto& entry) {
      if (!which(*entry.second)) return false;
      out.push_back(std::move(entry.second));
      return true;
    });
    return out;
  }

 private:
  struct Account {
    double charge = 0;   // tokens
    int64_t active = 0;  // requests
  };
  using Entry = std::pair<Ticket, std::unique_ptr<Item>>;

  std::optional<double> least_active() const {
    std::optional<double> least;
    for (const auto& [client, account] : accounts_)
      if (account.active > 0) least = std::min(least.value_or(account.charge), account.charge);
    return least;
  }
  typename std::vector<Entry>::iterator best() {
    return std::ranges::min_element(waiting_, [&](const Entry& a, const Entry& b) {
      if (a.first.priority != b.first.priority) return a.first.priority > b.first.priority;
      const double x = accounts_.at(a.first.client).charge, y = accounts_.at(b.first.client).charge;
      return x != y ? x < y : a.first.arrival < b.first.arrival;
    });
  }

  std::map<std::string, Account> accounts_;
  std::vector<Entry> waiting_;
};

}  // namespace fathom
