// The name of a platform.

/** What this platform is called in the name of the compiled file: `linux-x64-gnu`. */
export function platformTriple(): string {
  const { platform, arch } = process;
  if (platform === "win32") return `${platform}-${arch}-msvc`;
  if (platform !== "linux") return `${platform}-${arch}`;
  // Without this a report looks up the names of open connections.
  const report = process.report as typeof process.report & { excludeNetwork?: boolean };
  const before = report.excludeNetwork;
  report.excludeNetwork = true;
  const { glibcVersionRuntime } = (report.getReport() as { header: { glibcVersionRuntime?: string } }).header;
  if (before !== undefined) report.excludeNetwork = before;
  return `${platform}-${arch}-${glibcVersionRuntime ? "gnu" : "musl"}`;
}
