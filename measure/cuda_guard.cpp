// A device guard for DeviceType::CUDA that does nothing.
//
// The CPU build of torch has no CUDA guard, and the autograd engine asks the guard for device counts and current
// streams as soon as a tensor says it lives on cuda. Fake tensors never launch work, so every answer can be a constant.
// The engine also asks which accelerator there is, and finds one only through the CUDA hooks.
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

using c10::Device;
using c10::DeviceIndex;
using c10::DeviceType;
using c10::Stream;

thread_local DeviceIndex current_index = 0;

struct IdleCudaGuard final : public c10::impl::DeviceGuardImplInterface {
  static Stream idle_stream(Device device) {
    const DeviceIndex index = device.has_index() ? device.index() : current_index;
    return Stream(Stream::DEFAULT, Device(DeviceType::CUDA, index));
  }
  DeviceType type() const override { return DeviceType::CUDA; }
  Device exchangeDevice(Device device) const override {
    const Device before = getDevice();
    setDevice(device);
    return before;
  }
  Device getDevice() const override { return Device(DeviceType::CUDA, current_index); }
  void setDevice(Device device) const override { uncheckedSetDevice(device); }
  void uncheckedSetDevice(Device device) const noexcept override {
    if (device.has_index()) {
      current_index = device.index();
    }
  }
  Stream getStream(Device device) const override { return idle_stream(device); }
  Stream getDefaultStream(Device device) const override { return idle_stream(device); }
  Stream getStreamFromGlobalPool(Device device, bool) const override { return idle_stream(device); }
  Stream getNewStream(Device device, int) const override { return idle_stream(device); }
  Stream exchangeStream(Stream stream) const override { return idle_stream(stream.device()); }
  DeviceIndex deviceCount() const noexcept override { return 8; }
  void record(void**, const Stream&, const DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}
};

// The registry looks the hooks up by this name.
struct CUDAHooks final : public at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 8; }
  int getNumGPUs() const override { return 8; }
  DeviceIndex current_device() const override { return current_index; }
  DeviceIndex getCurrentDevice() const override { return current_index; }
  void setCurrentDevice(DeviceIndex index) const override { current_index = index; }
};

}  // namespace

using at::CUDAHooksRegistry;
using at::RegistererCUDAHooksRegistry;
REGISTER_CUDA_HOOKS(CUDAHooks)
C10_REGISTER_GUARD_IMPL(CUDA, IdleCudaGuard)
