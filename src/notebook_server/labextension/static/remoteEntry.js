// What JupyterLab leaves to be desired on this site.
//
// What it asks of an extension is a container of webpack's module federation, which needs no building if it is as small
// as this one: https://jupyterlab.readthedocs.io/en/stable/extension/extension_dev.html#prebuilt-extensions
(() => {
  let shared;

  const sharedModule = async name => (await Object.values(shared[name])[0].get())();

  // The launcher's kernels in the order that the site gives them, by launcher_rank in the metadata of their kernel.json.
  // JupyterLab gives a rank to the default kernel alone and sorts the others by their names: the oldest release of an
  // environment would come first. Its launcher does sort by ranks, and so they are set here, on the items as they come.
  const kernelOrder = ({ ILauncher }) => ({
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

  // Dask's panel finds the dashboard of the notebook's client when its magnifying glass is clicked. Here the command
  // behind that runs by itself, as long as the panel is open: when it opens, when another notebook comes to the front,
  // and when a cell has run. It asks the kernel, so that a panel nobody looks at costs nothing.
  const FIND = 'dask:populate-dashboard-url';
  const WAIT = 300; // ms: of the cells that run one after another, the last
  const daskPanel = ({ ILabShell }, { NotebookActions }) => ({
    id: 'notebook-server:dask-panel',
    description: "Fills in the address of the dashboard in Dask's panel.",
    autoStart: true,
    requires: [ILabShell],
    activate: (app, shell) => {
      let opened = false;
      let timer;
      const isOpen = () =>
        ['left', 'right'].some(area =>
          Array.from(shell.widgets(area)).some(panel => panel.id === 'dask-dashboard-launcher' && panel.isVisible)
        );
      const find = () => {
        clearTimeout(timer);
        timer = setTimeout(() => {
          if (isOpen() && app.commands.hasCommand(FIND)) {
            void app.commands.execute(FIND);
          }
        }, WAIT);
      };
      shell.layoutModified.connect(() => {
        const open = isOpen();
        if (open && !opened) {
          find();
        }
        opened = open;
      });
      shell.currentChanged.connect(find);
      NotebookActions.executed.connect(find);
    }
  });

  window._JUPYTERLAB = window._JUPYTERLAB ?? {};
  window._JUPYTERLAB['notebook-server'] = {
    init: scope => {
      shared = scope;
    },
    get: async () => {
      const [launcher, application, notebook] = await Promise.all(
        ['@jupyterlab/launcher', '@jupyterlab/application', '@jupyterlab/notebook'].map(sharedModule)
      );
      return () => ({ __esModule: true, default: [kernelOrder(launcher), daskPanel(application, notebook)] });
    }
  };
})();
