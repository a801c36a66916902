// The launcher's kernels in the order that the site gives them, by launcher_rank in the metadata of their kernel.json.
//
// JupyterLab gives a rank to the default kernel alone and sorts the others by their names: the oldest release of an
// environment would come first. Its launcher does sort by ranks, and so they are set here, on the items as they come.
// What JupyterLab asks of an extension is a container of webpack's module federation, which needs no building if it is
// as small as this one: https://jupyterlab.readthedocs.io/en/stable/extension/extension_dev.html#prebuilt-extensions
(() => {
  let shared;

  const kernelOrder = ILauncher => ({
    id: 'notebook-server:kernel-order',
    description: 'Orders the kernels of the launcher as the site does.',
    autoStart: true,
    requires: [ILauncher],
    activate: (app, launcher) => {
      const order = () => {
        for (const item of launcher.items()) {
          const rank = item.metadata?.kernel?.launcher_rank;
          if (typeof rank === 'number') {
            item.rank = rank;
          }
        }
      };
      // Items come and go with kernels; the page is drawn after this
      launcher.stateChanged.connect(order);
      launcher.stateChanged.emit(undefined);
    }
  });

  window._JUPYTERLAB = window._JUPYTERLAB ?? {};
  window._JUPYTERLAB['notebook-server'] = {
    init: scope => {
      shared = scope;
    },
    get: async () => {
      const [launcher] = Object.values(shared['@jupyterlab/launcher']);
      const { ILauncher } = (await launcher.get())();
      return () => ({ __esModule: true, default: kernelOrder(ILauncher) });
    }
  };
})();
