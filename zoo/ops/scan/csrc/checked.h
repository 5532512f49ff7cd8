// The check of a call's sizes, pointers and order, before anything is read by them.
#pragma once

#include "zoo_scan.h"

// A call that may be run. Its order is a copy: nothing that another thread writes into the caller's
// order after the check can lead the kernel out of its tensors.
class CheckedScan {
 public:
  explicit CheckedScan(const ZooScan& given);
  ~CheckedScan();
  CheckedScan(const CheckedScan&) = delete;
  CheckedScan& operator=(const CheckedScan&) = delete;

  int status() const { return status_; }  // ZOO_OK, or what is wrong
  const ZooScan& scan() const { return scan_; }

 private:
  int copy_order();

  ZooScan scan_;
  int status_;
  int32_t* order_ = nullptr;
};
